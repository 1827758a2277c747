"""Where memory is short a smaller plan takes over, from the same optimiser step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from steps.errors import TrainingError
from steps.files import hashes
from steps.train import planning
from steps.train.checkpoint import Checkpoints
from steps.train.distributed.task import LeftPlan
from steps.train.params import CheckpointParameters
from steps.train.plan.choose import PlannedPlan
from steps.train.plan.job import Job
from steps.train.plan.memory import predict_memory
from steps.train.plan.plan import Plan
from steps.train.report import TrainingReport
from steps.train.stepdown import (
    LeavePlan,
    OutOfMemory,
    PreflightError,
    is_out_of_memory,
    next_plan,
    step_down,
)
from tests.tiny_run import TinyRun
from tests.train.short_memory import MEMORY, no_memory_at

LARGE, SMALL = Plan(2, 1, recompute="nothing"), Plan(1, 2, recompute="nothing")


def planned(job: Job, plan: Plan) -> PlannedPlan:
    return PlannedPlan(plan, predict_memory(job, plan), None, 0)


def train(run: TinyRun, folder: Path, plans: list[Plan], monkeypatch: pytest.MonkeyPatch) -> TrainingReport:
    """Train by these plans, whatever the planner would choose."""
    monkeypatch.setattr(planning, "plans", lambda job, *_: [planned(job, plan) for plan in plans])
    store = Checkpoints(folder, "work", CheckpointParameters(every_steps=4))
    return run.train(folder / "adapter", store=store)


def course(report: TrainingReport) -> dict[str, Any]:
    return report.model_dump(include={"steps", "validation", "skipped", "best_step", "tokens", "epochs"})


@pytest.mark.parametrize("step", [1, 3, 7])
def test_the_training_goes_on_from_the_same_step(
    tiny_run: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    """By an equal plan, so that the adapter is the same to the bit; no step is taken twice."""
    with no_memory_at(1 + step) as passes:  # the pre-flight's is the first
        report = train(tiny_run, tmp_path, [LARGE, LARGE], monkeypatch)
    assert len(passes) == 2 + 12 + 1  # two pre-flights, twelve steps, the one that failed
    assert report.resumed_from == ([step - 1] if step > 1 else [])
    assert hashes(tmp_path / "adapter") == hashes(tiny_run.adapter)
    assert course(report) == course(tiny_run.report)
    left = report.choices[-1]
    assert (left.name, left.value, left.reason) == ("plan left", str(LARGE), "CUDA out of memory.")
    assert f"CUDA out of memory.; goes on with {LARGE}" in capsys.readouterr().out


def test_a_smaller_plan_learns_the_same(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_memory_at(6):
        report = train(tiny_run, tmp_path, [LARGE, SMALL], monkeypatch)
    assert report.resumed_from == [4]
    for found, expected in zip(report.steps, tiny_run.report.steps, strict=True):
        assert found.loss == pytest.approx(expected.loss, abs=0.02)


def test_in_the_pre_flight(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_memory_at(1):
        report = train(tiny_run, tmp_path, [LARGE, LARGE], monkeypatch)
    assert report.resumed_from == []
    assert hashes(tmp_path / "adapter") == hashes(tiny_run.adapter)
    assert "the pre-flight failed at the training step" in report.choices[-1].reason


def test_while_weights_are_moved(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be half moved, so that the last checkpoint is gone back to."""
    with no_memory_at(7, optimizer=True):
        report = train(tiny_run, tmp_path, [LARGE, LARGE], monkeypatch)
    assert report.resumed_from == [4]
    assert hashes(tmp_path / "adapter") == hashes(tiny_run.adapter)


def test_the_last_plan_s_error_is_the_end(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_memory_at(1), pytest.raises(OutOfMemory, match=r"set parameters\.plan\.micro_batch to 1"):
        train(tiny_run, tmp_path, [LARGE], monkeypatch)


def test_other_errors_are_no_reason_for_another_plan() -> None:
    tried: list[Plan] = []

    def fail(plan: Plan, _: list[LeftPlan]) -> None:
        tried.append(plan)
        raise TrainingError("the training diverged")

    with pytest.raises(TrainingError, match="diverged"):
        step_down([LARGE, SMALL], list, lambda _: True, fail)
    assert tried == [LARGE]


def test_plans_that_do_not_fit_what_is_free_are_passed_over() -> None:
    plans = [Plan(size, 1) for size in (8, 4, 2, 1)]
    tried: list[int] = []

    def fail(plan: Plan, _: list[LeftPlan]) -> None:
        tried.append(plan.micro_batch)
        raise MEMORY

    for fits, expected in ((2, [8, 2, 1]), (1, [8, 1]), (0, [8, 1])):
        tried.clear()
        with pytest.raises(torch.OutOfMemoryError):
            step_down(plans, list, lambda plan, fits=fits: plan.micro_batch <= fits, fail)  # type: ignore[misc]  # mypy infers no default
        assert tried == expected, "the last one is tried whatever is said of it"


def test_new_processes_go_on_where_the_former_left() -> None:
    """With the plans that were left they find the next one, or the error is the end."""
    plain = Plan(1, 2, fused=False)

    def leave(error: Exception, *before: LeftPlan) -> LeftPlan:
        def fail(*_: object) -> None:
            raise error

        with pytest.raises(LeavePlan) as caught:
            next_plan([LARGE, SMALL], lambda: [plain], list(before), fail)
        return caught.value.left

    first = leave(MEMORY)
    assert first == LeftPlan(plan=str(LARGE), reason="CUDA out of memory.", plain=False)
    assert next_plan([LARGE, SMALL], list, [first], lambda plan, _: plan) == SMALL
    second = leave(PreflightError("kernels failed"), first)
    assert (second.plan, second.plain) == (str(SMALL), True)
    assert next_plan([LARGE, SMALL], lambda: [plain], [first, second], lambda plan, _: plan) == plain
    with pytest.raises(torch.OutOfMemoryError):
        leave(MEMORY, first)


def test_kernels_that_fail_give_way_to_trls(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a compiler of kernels may on a card that it does not know."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("PassManager::run failed\nwith many lines")

    monkeypatch.setattr("steps.train.cpu.head.TokenScores.forward", broken)
    report = tiny_run.train(tmp_path / "adapter")
    choices = {one.name: (one.value, one.reason) for one in report.choices}
    assert choices["kernels"] == ("plain", "ours failed in the pre-flight")
    assert "RuntimeError: PassManager::run failed" in choices["plan left"][1]
    assert "TRL's own kernels" in capsys.readouterr().out
    assert len(report.steps) == 12


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MEMORY, True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
