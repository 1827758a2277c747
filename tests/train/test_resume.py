"""Killed at any moment, a training goes on where it was and ends with the same bytes."""

import fcntl
import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from datasets import DatasetDict

from steps.errors import DeviceError, TrainingError
from steps.files import hashes
from steps.train.checkpoint import checkpoints_of
from steps.train.params import CheckpointParameters, EarlyStoppingParameters
from steps.train.report import TrainingReport
from tests.tiny_run import TinyRun
from tests.train.killed import KillPoint, Work, train_until
from tests.train.signalled import handled_by, sigterm_after

STEPS = 12
RANDOM = random.Random(6)  # noqa: S311 - picks steps, no secrets


@pytest.fixture
def work(tiny_run: TinyRun, tmp_path: Path) -> Work:
    return Work.of(tiny_run, tmp_path)


def course(report: TrainingReport) -> dict[str, object]:
    """All figures that do not depend on the clock or on how often the work was interrupted."""
    return report.model_dump(exclude={"cost", "preflight_seconds", "resumed_from"})


def rerun(work: Work, run: TinyRun, tmp_path: Path) -> list[int]:
    """Run the work again, compare adapter and report with an uninterrupted run's; gives ``resumed_from``."""
    report = work.train(tmp_path / "rerun")
    assert hashes(tmp_path / "rerun") == hashes(run.adapter)
    assert course(report) == course(run.report)
    return report.resumed_from


def test_another_process_makes_the_same_adapter(work: Work, tiny_run: TinyRun, tmp_path: Path) -> None:
    assert train_until(work, KillPoint("never"), tmp_path / "other") == 0
    assert hashes(tmp_path / "other") == hashes(tiny_run.adapter)


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
    ("event", "name"),
    [("open", "/trainer_state.json"), ("open", "/course.json"), ("open", "/manifest.json"), ("os.rename", "")],
)
@pytest.mark.parametrize("step", [2, 6])
def test_killed_while_a_checkpoint_is_written(
    work: Work, tiny_run: TinyRun, tmp_path: Path, event: str, name: str, step: int
) -> None:
    """The unfinished one counts for nothing."""
    point = KillPoint(event, 1, f".writing-{step}{name}")
    assert train_until(work, point, tmp_path / "killed") == -signal.SIGKILL
    assert [path.name for path in work.store().folder.glob(".writing-*")] == [f".writing-{step}"]
    assert rerun(work, tiny_run, tmp_path) == ([step - 2] if step > 2 else [])


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


def test_checkpoints_by_the_clock(work: Work, tiny_run: TinyRun, tmp_path: Path) -> None:
    """Any step takes longer than 60 nanoseconds."""
    timed = replace(work, checkpoints=CheckpointParameters(folder=work.checkpoints.folder, every_minutes=1e-9, keep=1))
    assert train_until(timed, KillPoint("optimizer", 4), tmp_path / "killed") == -signal.SIGKILL
    assert [path.name for path in timed.store().folder.iterdir()] == ["step-00000003"]
    assert rerun(timed, tiny_run, tmp_path) == [3]


def test_resumed_over_epochs_and_a_short_last_micro_batch(work: Work, tiny_run: TinyRun, tmp_path: Path) -> None:
    """Seven blocks in steps of two: each epoch ends with a step of one; dropout is drawn in every step."""
    blocks = DatasetDict(train=tiny_run.blocks["train"].select(range(7)), validation=tiny_run.blocks["validation"])
    blocks.save_to_disk(tmp_path / "few")
    few = replace(
        work,
        blocks=tmp_path / "few",
        training=work.training.model_copy(update={"batch_size": 1, "gradient_accumulation": 2}),
    )
    expected = few.undisturbed(tmp_path / "expected")
    assert train_until(few, KillPoint("optimizer", 5), tmp_path / "killed") == -signal.SIGKILL  # 4 is an epoch's end
    assert train_until(few, KillPoint("optimizer", 4), tmp_path / "killed again") == -signal.SIGKILL
    report = few.train(tmp_path / "rerun")
    assert report.resumed_from == [4, 6]
    assert hashes(tmp_path / "rerun") == hashes(tmp_path / "expected")
    assert course(report) == course(expected)


def test_patience_and_best_adapter_survive(work: Work, tiny_run: TinyRun, tmp_path: Path) -> None:
    """Stopped early, then killed at the adapter's saving: the rerun neither trains on nor forgets the best step."""
    early = EarlyStoppingParameters(patience=3, min_improvement=100)
    changes = {"evaluate_every": 1, "early_stopping": early, "learning_rate": 0.1, "max_steps": 20}
    hasty = replace(work, training=work.training.model_copy(update=changes))
    expected = hasty.undisturbed(tmp_path / "expected")
    assert expected.steps[-1].step == 4
    for point in (KillPoint("optimizer", 4), KillPoint("open", 1, "open/provenance.json")):
        assert train_until(hasty, point, tmp_path / point.event) == -signal.SIGKILL
    report = hasty.train(tmp_path / "rerun")
    assert report.resumed_from == [2, 4]
    assert hashes(tmp_path / "rerun") == hashes(tmp_path / "expected")
    assert course(report) == course(expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_write_a_checkpoint_and_end(
    work: Work, tiny_run: TinyRun, tmp_path: Path, number: signal.Signals
) -> None:
    """The step under way is finished; the former handler is back afterwards."""
    rare = replace(work, checkpoints=CheckpointParameters(folder=work.checkpoints.folder))
    expected = r"training stopped after step 5 of 12, .*SIGTERM or Ctrl-C.*; run the same"
    with handled_by(number, signal.default_int_handler):
        with sigterm_after(5, number), pytest.raises(TrainingError, match=expected):
            rare.train(tmp_path / "stopped")
        assert signal.getsignal(number) == signal.default_int_handler
    assert not list((tmp_path / "stopped").iterdir())
    assert rerun(rare, tiny_run, tmp_path) == [5]


def test_a_second_ctrl_c_ends_at_once(work: Work, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    twice, usual = sigterm_after(5, signal.SIGINT, times=2), signal.default_int_handler
    with handled_by(signal.SIGINT, usual), twice, pytest.raises(KeyboardInterrupt):
        work.train(tmp_path / "stopped")
    said = "ends after this step, with a checkpoint; Ctrl-C again ends it at once, without"
    assert capfd.readouterr().err.count(said) == 1
    assert sorted(path.name for path in work.store().folder.iterdir()) == ["step-00000002", "step-00000004"]


def test_sigterm_at_the_last_step_changes_nothing(work: Work, tiny_run: TinyRun, tmp_path: Path) -> None:
    with sigterm_after(STEPS):
        assert rerun(work, tiny_run, tmp_path) == []


@pytest.mark.parametrize("optimizer", ["adamw_bnb_8bit", "paged_adamw_8bit", "adafactor"])
def test_every_optimisers_state_is_exact(work: Work, tmp_path: Path, optimizer: str) -> None:
    """adafactor keeps float32 for bfloat16 weights, which torch would round when it loads the state."""
    other = replace(work, training=work.training.model_copy(update={"optimizer": optimizer, "precision": "bfloat16"}))
    expected = other.undisturbed(tmp_path / "expected")
    with sigterm_after(5), pytest.raises(TrainingError):
        other.train(tmp_path / "stopped")
    assert course(other.train(tmp_path / "rerun")) == course(expected)
    assert hashes(tmp_path / "rerun") == hashes(tmp_path / "expected")


def test_a_damaged_checkpoint_is_passed_over(
    work: Work, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_until(work, KillPoint("optimizer", 9), tmp_path / "killed") == -signal.SIGKILL
    older, newest = sorted(work.store().folder.glob("step-*"))
    weights = newest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert rerun(work, tiny_run, tmp_path) == [int(older.name.removeprefix("step-"))] == [6]
    said = capsys.readouterr().out
    assert "step-00000008 is damaged (not as written: weights.safetensors)" in said
    assert "resumed from step 6" in said


def test_a_finished_training_leaves_its_last_checkpoint_until_told(
    work: Work, tiny_run: TinyRun, tmp_path: Path
) -> None:
    assert rerun(work, tiny_run, tmp_path) == []
    store = work.store()
    assert sorted(path.name for path in store.folder.iterdir()) == ["step-00000010", "step-00000012"]
    store.remove()
    assert list(store.folder.parent.iterdir()) == []


def test_two_processes_never_share_a_training(work: Work, tmp_path: Path) -> None:
    store = work.store()
    with store.held():
        store.remove()  # it is in use
        with pytest.raises(TrainingError, match=rf"process {os.getpid()} on .* is doing this very training"):
            work.train(tmp_path / "second")
        assert store.folder.is_dir()
    with store.held():
        pass


def test_a_lock_that_its_holder_removed_is_not_taken(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening of the lock's file and its locking another process may finish and remove it."""
    store = work.store()
    real, calls = fcntl.flock, iter(range(9))

    def after_removal(stream: IO[str], operation: int) -> None:
        if next(calls) == 0:
            store.lock.unlink()
        real(stream, operation)

    monkeypatch.setattr(fcntl, "flock", after_removal)  # no other way to hit that moment
    with store.held(), pytest.raises(TrainingError), store.held():
        pass


def test_other_work_has_other_checkpoints(work: Work, tiny_run: TinyRun, tmp_path: Path) -> None:
    def folder(**changes: object) -> str:
        arguments: dict[str, Any] = {
            "blocks": tiny_run.blocks,
            "model_folder": work.model,
            "tokenizer_folder": work.tokenizer,
            "training": work.training,
            "checkpoints": work.checkpoints,
        }
        return checkpoints_of(**{**arguments, **changes}).folder.name

    model = tmp_path / "model"
    shutil.copytree(work.model, model)
    assert folder(model_folder=model) == folder() == work.store().folder.name
    assert folder(checkpoints=CheckpointParameters(folder=str(tmp_path), every_steps=1, keep=5)) == folder()
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    fewer = DatasetDict(train=tiny_run.blocks["train"].select(range(9)), validation=tiny_run.blocks["validation"])
    another = tiny_run.blocks["train"].map(lambda block: {"input_ids": [7, *block["input_ids"][1:]]})
    others = [
        folder(model_folder=model),
        folder(blocks=fewer),
        folder(blocks=DatasetDict(train=another, validation=tiny_run.blocks["validation"])),
        folder(training=work.training.model_copy(update={"seed": 1})),
        folder(tokenizer_folder=tmp_path / "blocks"),
    ]
    assert len({folder(), *others}) == 6


def test_a_full_disk_is_named_before_training(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)  # no disk to fill up
    with pytest.raises(DeviceError, match=r"name another folder under parameters\.checkpoints\.folder"):
        work.train(tmp_path / "adapter")
