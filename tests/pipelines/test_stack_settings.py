"""A stack's settings in a file of their own: joined with the recipe, and checked as strictly."""

from collections.abc import Callable
from pathlib import Path

import pytest
from zenml import get_step_context, step

from pipelines.stack_settings import over
from pipelines.strict import strict_pipeline
from steps.errors import ConfigError
from steps.split.params import SplitParameters

Write = Callable[[str], Path]
RECIPE = "model: {name: toy}\nstack_settings: %s\nparameters: {splits: {seed: 7}}\n"


@step(enable_cache=False)
def see(splits: SplitParameters) -> str:
    """Tell how the step is configured."""
    config = get_step_context().step_run.config
    retries = config.retry.max_retries if config.retry else 0
    return f"{splits.seed} {retries} {config.resource_settings.cpu_count} {config.resource_settings.memory}"


@strict_pipeline
def seeing(splits: SplitParameters) -> None:
    """One step."""
    see(splits)


def recipe(write: Write, tmp_path: Path, stack: str, more: str = "") -> str:
    """A recipe that names a stack's file with the given text."""
    path = tmp_path / "stack.yaml"
    path.write_text(stack, encoding="utf-8")
    return str(write(RECIPE % path + more))


STACK = """
stack_name: anything
components: {}
settings: {resources: {cpu_count: 2, memory: 3GB}}
steps: {see: {retry: {max_retries: 4}}}
"""


def test_a_run_has_both(config_file: Write, tmp_path: Path) -> None:
    """With settings of a stack that is not this one, which this one passes over."""
    other = STACK.replace("settings: {", "settings: {orchestrator.kubernetes: {job_name_prefix: x}, ")
    run = seeing.with_options(config_path=recipe(config_file, tmp_path, other))()
    assert run is not None
    assert run.steps["see"].output.load() == "7 4 2.0 3GB"


def test_the_recipe_has_the_last_word(config_file: Write, tmp_path: Path) -> None:
    more = "settings: {resources: {memory: 5GB}}\nsteps: {see: {retry: {max_retries: 1}}}\n"
    run = seeing.with_options(config_path=recipe(config_file, tmp_path, STACK, more))()
    assert run is not None
    assert run.steps["see"].output.load() == "7 1 2.0 5GB"


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ("step: {}\n", "stack.yaml:1: step: unknown key"),
        ("parameters: {}\n", "stack.yaml:1: parameters: unknown key"),
        ("\nsteps: {sea: {}}\n", "stack.yaml:2: steps.sea: unknown step"),
        ("steps: {see: {retry: {max_tries: 1}}}\n", "stack.yaml:1: steps.see.retry.max_tries: unknown key"),
        ("settings: {resources: {gpus: 1}}\n", "stack.yaml:1: settings.resources.gpus: unknown key"),
        ("settings: 3\n", "stack.yaml:1: settings: needs a mapping"),
        ("settings: {}\nsettings: {}\n", "stack.yaml:2: settings: given twice"),
    ],
)
def test_a_mistake_in_it_is_found(config_file: Write, tmp_path: Path, stack: str, message: str) -> None:
    path = recipe(config_file, tmp_path, stack)
    with pytest.raises(ConfigError) as error:
        seeing.with_options(config_path=path)
    assert message in str(error.value)


def test_it_must_be_a_file(config_file: Write) -> None:
    with pytest.raises(ConfigError, match=r"config.yaml:2: stack_settings: /nowhere.yaml is no file; name one such as"):
        seeing.with_options(config_path=str(config_file(RECIPE % "/nowhere.yaml")))
    with pytest.raises(ConfigError, match=r"config.yaml:2: stack_settings: needs the path of a file such as .*, not 3"):
        seeing.with_options(config_path=str(config_file(RECIPE % 3)))


def test_mappings_are_joined_and_lists_are_not() -> None:
    assert over({"a": {"b": [1], "c": 2}, "d": 3}, {"a": {"b": [4]}, "e": 5}) == {
        "a": {"b": [4], "c": 2},
        "d": 3,
        "e": 5,
    }
    assert over({"a": {"b": 1}}, {"a": None}) == {"a": None}
