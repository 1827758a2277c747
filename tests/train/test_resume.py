"""Killed at any moment, a training goes on where it was and ends with the same bytes."""

import fcntl
import json
import os
import random
import signal
from pathlib import Path

import pytest
from datasets import DatasetDict
from torch.optim.optimizer import register_optimizer_step_post_hook

from steps.errors import DeviceError, TrainingError
from steps.files import hashes
from steps.train.checkpoint import Checkpoints, checkpoints_of
from steps.train.params import CheckpointParameters, EarlyStoppingParameters
from steps.train.report import TrainingReport
from tests.tiny_run import TinyRun
from tests.train.killed import KillPoint, Work, train_until

STEPS = 12
RANDOM = random.Random(6)  # noqa: S311 - picks steps, no secrets
MANIFESTS = "manifest.json"


@pytest.fixture
def work(tiny_run: TinyRun, tmp_path: Path) -> Work:
    """The tiny training with a checkpoint after every other step, in a folder of its own."""
    tiny_run.blocks.save_to_disk(tmp_path / "blocks")
    checkpoints = CheckpointParameters(folder=str(tmp_path / "checkpoints"), every_steps=2)
    return Work(tmp_path / "blocks", tiny_run.model, tiny_run.tokenizer, tiny_run.training, checkpoints)


def course(report: TrainingReport) -> dict[str, object]:
    """All figures that do not depend on the clock or on how often the work was interrupted."""
    return report.model_dump(exclude={"seconds", "tokens_per_second", "peak_memory_bytes", "resumed_from"})


def rerun(work: Work, run: TinyRun, tmp_path: Path) -> list[int]:
    """Run the work again, compare adapter and report with an uninterrupted run's; gives ``resumed_from``."""
    report = work.train(tmp_path / "rerun")
    assert hashes(tmp_path / "rerun") == hashes(run.adapter)
    assert course(report) == course(run.report)
    return report.resumed_from


@pytest.mark.parametrize("step", sorted(RANDOM.sample(range(1, STEPS + 1), 4)))
def test_killed_at_a_random_optimiser_step(work: Work, tiny_run: TinyRun, tmp_path: Path, step: int) -> None:
    assert train_until(work, KillPoint("optimizer", step), tmp_path / "killed") == -signal.SIGKILL
    newest = (step - 1) // 2 * 2
    assert rerun(work, tiny_run, tmp_path) == ([newest] if newest else [])


@pytest.mark.parametrize("call", sorted(RANDOM.sample(range(200, 1500), 3)))
def test_killed_in_a_layer(work: Work, tiny_run: TinyRun, tmp_path: Path, call: int) -> None:
    assert train_until(work, KillPoint("forward", call), tmp_path / "killed") == -signal.SIGKILL
    rerun(work, tiny_run, tmp_path)


@pytest.mark.parametrize(
    ("event", "path"),
    [
        ("os.mkdir", ".writing-"),
        ("open", "trainer_state.json"),
        ("open", "course.json"),
        ("open", "manifest.json"),
        ("os.rename", ".writing-"),
    ],
)
@pytest.mark.parametrize("checkpoint", [1, 3])
def test_killed_while_a_checkpoint_is_written(
    work: Work, tiny_run: TinyRun, tmp_path: Path, event: str, path: str, checkpoint: int
) -> None:
    """The unfinished one counts for nothing."""
    assert train_until(work, KillPoint(event, checkpoint, path), tmp_path / "killed") == -signal.SIGKILL
    assert list(work.store().folder.glob(".writing-*")) or event == "os.mkdir"
    assert rerun(work, tiny_run, tmp_path) == ([4] if checkpoint == 3 else [])


def test_killed_while_an_old_checkpoint_is_removed(work: Work, tiny_run: TinyRun, tmp_path: Path) -> None:
    assert train_until(work, KillPoint("shutil.rmtree", 1, "step-"), tmp_path / "killed") == -signal.SIGKILL
    assert rerun(work, tiny_run, tmp_path) == [6]


@pytest.mark.parametrize("name", ["adapter_config.json", "tokenizer_config.json", "provenance.json"])
def test_killed_while_the_adapter_is_saved(work: Work, tiny_run: TinyRun, tmp_path: Path, name: str) -> None:
    """All steps are done, so none is done again."""
    assert train_until(work, KillPoint("open", 1, f"killed/{name}"), tmp_path / "killed") == -signal.SIGKILL
    assert rerun(work, tiny_run, tmp_path) == [STEPS]


def test_killed_twice(work: Work, tiny_run: TinyRun, tmp_path: Path) -> None:
    assert train_until(work, KillPoint("optimizer", 6), tmp_path / "killed") == -signal.SIGKILL
    assert train_until(work, KillPoint("optimizer", 5), tmp_path / "killed again") == -signal.SIGKILL
    assert rerun(work, tiny_run, tmp_path) == [4, 8]
