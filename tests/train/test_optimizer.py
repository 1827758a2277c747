"""Every optimiser and schedule that a configuration can name moves the adapter; their arguments reach them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from datasets import DatasetDict
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from steps.device import describe_device
from steps.files import hashes
from steps.train.build import Task, sft_config
from steps.train.params import (
    ARGUMENTS_OF,
    EarlyStoppingParameters,
    LoraParameters,
    ScheduleArguments,
    TrainingParameters,
)
from steps.train.plan.plan import Plan
from steps.train.report import TrainingReport
from tests.tiny_run import TinyRun

LORA = LoraParameters(r=4)
OPTIMIZERS = get_args(TrainingParameters.model_fields["optimizer"].annotation)
SCHEDULES = get_args(TrainingParameters.model_fields["schedule"].annotation)
NEEDED: dict[str, dict[str, float]] = {
    "cosine_with_min_lr": {"min_lr": 1e-4},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 2},
    "greedy": {"min_lr": 1e-4, "max_lr": 1e-2},
}


def train(run: TinyRun, output: Path, **changes: Any) -> TrainingReport:
    """Two steps unless ``changes`` say otherwise, evaluated on one block."""
    values = {"lora": LORA, "max_steps": 2, "batch_size": 2, "gradient_accumulation": 1, "warmup_ratio": 0}
    values |= {"schedule": "constant", "early_stopping": None, "evaluate_every": 1, "learning_rate": 5e-3}
    training = TrainingParameters.model_validate({**values, **changes})
    blocks = DatasetDict(train=run.blocks["train"], validation=run.blocks["validation"].select([0]))
    return replace(run, training=training).train(output, blocks)


def rates(report: TrainingReport) -> list[float]:
    return [step.learning_rate for step in report.steps]


def test_names_are_those_of_transformers() -> None:
    assert set(OPTIMIZERS) <= {name.value for name in OptimizerNames}
    assert set(SCHEDULES) == {name.value for name in SchedulerType}


def weights_of(run: TinyRun, output: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """The trained adapter's, in float32."""
    train(run, output, precision="float32", **changes)
    return load_file(output / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def drawn(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The adapter's weights before any step; a step of 1e-30 vanishes in rounding."""
    return weights_of(tiny_run, tmp_path_factory.mktemp("drawn") / "adapter", optimizer="sgd", learning_rate=1e-30)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_moves_every_weight(
    tiny_run: TinyRun, drawn: dict[str, torch.Tensor], tmp_path: Path, optimizer: str
) -> None:
    weights = weights_of(tiny_run, tmp_path / "adapter", optimizer=optimizer, learning_rate=0.05)
    assert weights.keys() == drawn.keys()
    for name, weight in weights.items():
        assert weight.isfinite().all(), name
        assert (weight - drawn[name]).abs().max() > 1e-12, name


def test_the_optimizers_differ(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Names that mean the same to transformers give the same adapter, no other two do."""
    found: dict[str, list[str]] = {}
    for optimizer in ("adamw_torch", "adamw_bnb_8bit", "adamw_8bit", "ademamix", "lion_32bit", "adafactor", "sgd"):
        train(tiny_run, tmp_path / optimizer, optimizer=optimizer, max_steps=3)
        found.setdefault(hashes(tmp_path / optimizer)["adapter_model.safetensors"], []).append(optimizer)
    assert [names for names in found.values() if len(names) > 1] == [["adamw_bnb_8bit", "adamw_8bit"]]


@pytest.mark.parametrize(
    "change",
    [
        {"betas": [0.5, 0.9]},
        {"epsilon": 1e-2},
        {"weight_decay": 0.9},
        {"max_grad_norm": 1e-4},
        {"learning_rate": 1e-3},
        {"seed": 1},
        {"gradient_accumulation": 2},
        {"lora": {"r": 4, "loraplus_lr_ratio": 4}},
        {"lora": {"r": 4, "dropout": 0.5}},
    ],
    ids=str,
)
def test_no_parameter_is_dead(tiny_run: TinyRun, tmp_path: Path, change: dict[str, Any]) -> None:
    """``max_grad_norm`` shows in SGD alone: Adam divides the gradient's length away."""
    common: dict[str, Any] = {"optimizer": "sgd" if "max_grad_norm" in change else "adamw_torch", "max_steps": 3}
    train(tiny_run, tmp_path / "plain", **common)
    train(tiny_run, tmp_path / "changed", **common, **change)
    plain, changed = (hashes(tmp_path / name)["adapter_model.safetensors"] for name in ("plain", "changed"))
    assert plain != changed


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule(tiny_run: TinyRun, tmp_path: Path, schedule: str) -> None:
    warm_up = 0 if schedule in ("constant", "reduce_lr_on_plateau", "greedy") else 0.25
    report = train(
        tiny_run,
        tmp_path / "adapter",
        schedule=schedule,
        schedule_arguments=NEEDED.get(schedule, {}),
        warmup_ratio=warm_up,
        max_steps=8,
    )
    course = rates(report)
    peak = max(course)
    assert peak == pytest.approx(5e-3)
    assert not warm_up or course[0] < peak
    flat = ("constant", "constant_with_warmup", "reduce_lr_on_plateau", "greedy")
    assert (course[-1] < peak) == (schedule not in flat)


ARGUMENTS = [
    ("cosine", {}, {"num_cycles": 2}),
    ("cosine_with_restarts", {}, {"num_cycles": 3}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.5}, {"min_lr_rate": 0.9}),
    ("cosine_with_min_lr", {"min_lr": 1e-4}, {"min_lr": 4e-3}),
    ("cosine_warmup_with_min_lr", {"min_lr": 1e-4}, {"min_lr": 1e-4, "warmup_lr_rate": 0.1}),
    ("polynomial", {}, {"power": 3}),
    ("polynomial", {}, {"lr_end": 4e-3}),
    ("inverse_sqrt", {}, {"timescale": 1}),
    ("warmup_stable_decay", {"num_decay_steps": 2}, {"num_decay_steps": 5}),
    ("warmup_stable_decay", {"num_decay_steps": 5}, {"num_decay_steps": 5, "decay_type": "linear"}),
    ("warmup_stable_decay", {"num_decay_steps": 5}, {"num_decay_steps": 5, "min_lr_ratio": 0.5}),
]


@pytest.mark.parametrize(("schedule", "one", "other"), ARGUMENTS)
def test_arguments_reach_the_schedule(
    tiny_run: TinyRun, tmp_path: Path, schedule: str, one: dict[str, float], other: dict[str, float]
) -> None:
    courses = [
        rates(
            train(
                tiny_run,
                tmp_path / str(number),
                schedule=schedule,
                schedule_arguments=arguments,
                warmup_ratio=0.25,
                max_steps=8,
                evaluate_every=8,
            )
        )
        for number, arguments in enumerate((one, other))
    ]
    assert courses[0] != courses[1]


def test_the_plateau_lowers_the_rate_to_its_bound(tiny_run: TinyRun, tmp_path: Path) -> None:
    """A step of 5 raises the loss at once, so that the rate falls after every evaluation."""
    arguments = {"factor": 0.1, "patience": 0, "min_lr": 0.1}
    schedule = {"schedule": "reduce_lr_on_plateau", "schedule_arguments": arguments}
    report = train(tiny_run, tmp_path / "adapter", **schedule, learning_rate=5.0, max_steps=8)
    assert rates(report)[0] == 5.0
    assert rates(report)[-1] == pytest.approx(0.1)


def test_greedy_raises_the_rate_while_the_loss_falls(tiny_run: TinyRun, tmp_path: Path) -> None:
    arguments = {"factor": 0.5, "patience": 0, "min_lr": 1e-3, "max_lr": 8e-3}
    report = train(tiny_run, tmp_path / "adapter", schedule="greedy", schedule_arguments=arguments, max_steps=4)
    assert max(rates(report)) == pytest.approx(8e-3)


WRONG = [
    ({"schedule": "constant"}, "schedule constant has no warm-up; use constant_with_warmup or set warmup_ratio to 0"),
    ({"schedule": "reduce_lr_on_plateau"}, "schedule reduce_lr_on_plateau has no warm-up; set warmup_ratio to 0"),
    (
        {"schedule": "linear", "schedule_arguments": {"power": 2}},
        "schedule_arguments.power means nothing to schedule linear; it takes none",
    ),
    (
        {"schedule": "cosine", "schedule_arguments": {"min_lr": 1e-5}},
        "schedule_arguments.min_lr means nothing to schedule cosine; it takes num_cycles",
    ),
    (
        {"schedule": "cosine_with_min_lr"},
        "schedule cosine_with_min_lr needs schedule_arguments.min_lr or schedule_arguments.min_lr_rate, one of them",
    ),
    (
        {"schedule": "warmup_stable_decay"},
        "schedule warmup_stable_decay needs schedule_arguments.num_decay_steps",
    ),
    (
        {"schedule": "cosine_with_min_lr", "schedule_arguments": {"min_lr": 0.01}, "learning_rate": 0.001},
        "schedule_arguments.min_lr 0.01 is not below learning_rate",
    ),
    ({"optimizer": "sgd", "betas": [0.5, 0.9]}, "betas means nothing to optimizer sgd; remove it"),
    ({"optimizer": "lion_8bit", "epsilon": 1e-6}, "epsilon means nothing to optimizer lion_8bit; remove it"),
    (
        {"lora": {"initialization": "loftq", "dora": True}},
        "initialization loftq does not go with dora",
    ),
    (
        {"lora": {"initialization": "pissa"}},
        "pissa changes the base weights, but the stored quantised model serves every adapter",
    ),
    ({"lora": {"target_modules": "q_proj"}}, "for one name write [q_proj]"),
    ({"lora": {"target_modules": "(q_proj"}}, "'(q_proj' is not a regular expression"),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_what_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        TrainingParameters.model_validate(values)
    assert message in str(error.value)


def test_the_table_of_arguments_is_complete() -> None:
    """Every schedule and argument in it exists, and every argument belongs to a schedule."""
    assert ARGUMENTS_OF.keys() <= set(SCHEDULES)
    assert {name for names in ARGUMENTS_OF.values() for name in names} == ScheduleArguments.model_fields.keys()


def test_parameters_survive_their_own_json() -> None:
    """ZenML hands them to a step as JSON: every field is then given, and no rule may fail for that."""
    given = TrainingParameters(
        optimizer="sgd", evaluations_per_epoch=2, lora=LoraParameters(target_modules="all-linear")
    )
    assert TrainingParameters.model_validate(json.loads(given.model_dump_json())) == given


def test_checkpointing_is_not_reentrant(tiny_run: TinyRun, tmp_path: Path) -> None:
    task = Task(tiny_run.blocks, tiny_run.model, tiny_run.tokenizer, TrainingParameters(), describe_device())
    config = sft_config(task, Plan(5, 2, fused=False, recomputed_layers=2), str(tmp_path))
    assert (config.gradient_checkpointing, config.gradient_checkpointing_kwargs) == (True, {"use_reentrant": False})


def test_evaluations_per_epoch(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Spread over the epoch, and one at the end whatever the interval."""
    blocks = DatasetDict(
        train=tiny_run.blocks["train"].select([0, 1, 2, 3, 0, 1, 2, 3, 0, 1]), validation=tiny_run.blocks["validation"]
    )
    run = replace(tiny_run, blocks=blocks)
    epoch: dict[str, Any] = {"batch_size": 1, "max_steps": None, "epochs": 1}
    report = train(run, tmp_path / "three", **epoch, evaluations_per_epoch=3)
    assert [point.step for point in report.validation] == [3, 6, 9, 10]
    report = train(run, tmp_path / "many", **epoch, evaluations_per_epoch=100)
    assert [point.step for point in report.validation] == list(range(1, 11))
    report = train(run, tmp_path / "steps", **epoch, evaluate_every=4)
    assert [point.step for point in report.validation] == [4, 8, 10]


def test_patience_counts_evaluations_without_the_least_improvement(tiny_run: TinyRun, tmp_path: Path) -> None:
    common: dict[str, Any] = {"max_steps": 10, "evaluate_every": 2}
    stop = EarlyStoppingParameters(patience=2, min_improvement=100)
    report = train(tiny_run, tmp_path / "stopped", **common, early_stopping=stop)
    assert [point.step for point in report.validation] == [2, 4, 6]
    assert report.stopped == f"validation loss no longer fell after step {report.best_step}"
    report = train(tiny_run, tmp_path / "last", max_steps=6, evaluate_every=2, early_stopping=stop)
    assert (report.steps[-1].step, report.stopped) == (6, "all steps done")
    report = train(tiny_run, tmp_path / "whole", **common, early_stopping=EarlyStoppingParameters(patience=2))
    assert (report.steps[-1].step, report.stopped) == (10, "all steps done")
