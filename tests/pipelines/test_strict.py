"""A strict pipeline in process: it checks before it compiles, and lets a caller have the error itself."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from zenml import step
from zenml.enums import ExecutionStatus

from pipelines.console import CONSOLE_FILTER
from pipelines.strict import strict_pipeline
from steps.errors import ConfigError, DataError
from steps.split.params import SplitParameters
from steps.train.params import EarlyStoppingParameters, TrainingParameters

Write = Callable[[str], Path]
BROKEN_ROW = "rows.jsonl:3: no instruction; add one"
UNLUCKY_SEED = 13


@step
def draw(splits: SplitParameters) -> int:
    """Give the seed back, or fail as a step fails over its input."""
    if splits.seed == UNLUCKY_SEED:
        raise DataError(BROKEN_ROW)
    return splits.seed


@step(enable_cache=False)
def fit(seed: int, training: TrainingParameters) -> str:
    """Tell which parameters arrived."""
    patience = training.early_stopping.patience if training.early_stopping else "off"
    return f"{seed} {training.lora.r} {training.learning_rate} {patience}"


@strict_pipeline
def toy(splits: SplitParameters, training: TrainingParameters = TrainingParameters()) -> None:
    """Two steps."""
    fit(draw(splits), training)


def test_the_pipeline_knows_its_parameters_and_steps() -> None:
    assert {name: parameter.required for name, parameter in toy.parameters.items()} == {
        "splits": True,
        "training": False,
    }
    assert sorted(toy.step_names) == ["draw", "fit"]


def test_a_run_gets_the_values_of_the_file(config_file: Write) -> None:
    path = config_file(
        "model: {name: toy}\nparameters:\n  splits: {seed: 7, validation: 0}\n"
        "  training: {lora: {r: 3}, learning_rate: 2e-4, early_stopping: null}\n"
    )
    run = toy.with_options(config_path=str(path))()
    assert run is not None
    assert run.status == ExecutionStatus.COMPLETED
    assert run.steps["fit"].output.load() == "7 3 0.0002 off"


def test_step_options_of_the_file_reach_the_step(config_file: Write) -> None:
    path = config_file("model: {name: toy}\nparameters: {splits: {seed: 7}}\nsteps: {draw: {extra: {why: proof}}}\n")
    run = toy.with_options(config_path=str(path))()
    assert run is not None
    assert run.steps["draw"].config.extra == {"why": "proof"}


def test_a_call_with_arguments_needs_no_file() -> None:
    run = toy(
        SplitParameters(seed=5),
        training=TrainingParameters(early_stopping=EarlyStoppingParameters(patience=9)),
    )
    assert run is not None
    assert run.steps["fit"].output.load() == f"5 {TrainingParameters().lora.r} 0.0002 9"


def test_a_misspelt_file_is_refused_before_anything_runs(config_file: Write) -> None:
    path = config_file("model: {name: toy}\nparameters: {splits: {sede: 7}}\nsteps: {darw: {}}\n")
    with pytest.raises(ConfigError) as caught:
        toy.with_options(config_path=str(path))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{path}:2: parameters.splits.sede: unknown key; did you mean 'seed'?")
    assert second.startswith(f"{path}:3: steps.darw: unknown step; did you mean 'draw'?")


def test_the_check_also_sees_a_positional_config_path(config_file: Write) -> None:
    path = config_file("modle: 1\n")
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        toy.with_options(None, None, None, None, None, str(path))


def test_settings_of_the_active_stack_are_checked(config_file: Write) -> None:
    path = config_file("model: {name: toy}\nparameters: {splits: {}}\nsettings: {deployer: {prot: 8000}}\n")
    with pytest.raises(ConfigError, match=r"settings\.deployer\.prot: unknown key; did you mean 'port'"):
        toy.with_options(config_path=str(path))


def test_a_step_that_fails_over_its_input_raises_that_error(
    config_file: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = config_file(f"model: {{name: toy}}\nparameters: {{splits: {{seed: {UNLUCKY_SEED}}}}}\n")
    with pytest.raises(DataError) as caught:
        toy.with_options(config_path=str(path))()
    assert str(caught.value) == BROKEN_ROW
    assert any("draw" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("error", "kept"), [(DataError("one line"), False), (KeyError("a bug"), True)])
def test_only_a_users_error_loses_its_traceback(error: Exception, kept: bool) -> None:
    record = logging.LogRecord(
        "zenml", logging.ERROR, __file__, 1, "Step draw failed.", None, (type(error), error, None)
    )
    assert CONSOLE_FILTER.filter(record)
    assert (record.exc_info is not None) == kept
