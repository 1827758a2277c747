"""The pre-flight fails where the run would fail later, and leaves no trace where nothing is wrong."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from steps.errors import DataError, DeviceError, PipelineError, TrainingError
from steps.files import hashes
from steps.train.checkpoint import Checkpoints
from steps.train.params import CheckpointParameters
from steps.train.report import TrainingReport
from tests.tiny_run import TinyRun
from tests.train.short_memory import no_memory_for

END = 2


def train(run: TinyRun, output: Path, blocks: DatasetDict | None = None, **changes: Any) -> TrainingReport:
    """Three steps unless ``changes`` say otherwise."""
    return run.train(output, blocks, **{"max_steps": 3, "evaluate_every": 3, **changes})


def relabelled(blocks: DatasetDict, split: str, change: Callable[[int, list[int]], list[int]]) -> DatasetDict:
    """The blocks with labels that ``change`` makes of a block's number and its labels."""
    changed = blocks[split].map(lambda block, number: {"labels": change(number, block["labels"])}, with_indices=True)
    return DatasetDict({**blocks, split: changed})


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float32"},
        {"precision": "bfloat16"},
        {"optimizer": "paged_adamw_8bit"},
        {"optimizer": "adafactor"},
        {"schedule": "reduce_lr_on_plateau", "warmup_ratio": 0.0},
    ],
    ids=str,
)
def test_the_adapter_is_the_same_with_and_without(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Dropout draws in every step, so that one number drawn more would show; that is the control."""
    report = train(tiny_run, tmp_path / "with", **changes)
    monkeypatch.setattr("steps.train.rehearsal.rehearse", lambda *_: [])
    without = train(tiny_run, tmp_path / "without", **changes)
    monkeypatch.setattr("steps.train.rehearsal.rehearse", lambda *_: [str(torch.rand(1))])
    train(tiny_run, tmp_path / "control", **changes)
    assert hashes(tmp_path / "with") == hashes(tmp_path / "without")
    assert hashes(tmp_path / "with") != hashes(tmp_path / "control")
    course = ("steps", "validation", "skipped", "best_step", "initial_adapter_sha256")
    assert report.model_dump(include=set(course)) == without.model_dump(include=set(course))


def test_what_was_tried_is_said(tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = sorted(map(len, tiny_run.blocks["train"]["input_ids"]))
    tokens = sum(lengths[-2:])
    report = train(tiny_run, tmp_path / "whole")
    assert report.preflight_seconds > 0
    said = capsys.readouterr().out
    assert (
        f"end token trained, packed neighbours apart, training step of {tokens:,} tokens, evaluation batch of" in said
    )

    alone = tiny_run.blocks.remove_columns("seq_lengths")
    alone["validation"] = alone["validation"].select([])
    train(tiny_run, tmp_path / "less", alone, early_stopping=None)
    said = capsys.readouterr().out
    assert f"s: end token trained, training step of {tokens:,} tokens, checkpoint\n" in said


def test_a_resumed_training_rehearses_too_unless_all_is_done(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Checkpoints(tmp_path / "checkpoints", "work", CheckpointParameters(every_steps=1))
    report = train(tiny_run, tmp_path / "first", store=store)
    for folder in sorted(store.folder.iterdir())[-1:]:
        (folder / "manifest.json").unlink()  # the newest is damaged: one step is left
    capsys.readouterr()
    resumed = train(tiny_run, tmp_path / "resumed", store=store)
    assert "pre-flight passed" in capsys.readouterr().out
    assert (resumed.resumed_from, resumed.steps) == ([2], report.steps)
    assert hashes(tmp_path / "resumed") == hashes(tmp_path / "first")
    assert train(tiny_run, tmp_path / "done", store=store).preflight_seconds == 0
    assert "pre-flight" not in capsys.readouterr().out


def test_labels_without_the_end_token(tiny_run: TinyRun, tmp_path: Path) -> None:
    blocks = relabelled(tiny_run.blocks, "train", lambda _, labels: [-100 if x == END else x for x in labels])
    count = len(blocks["train"])
    message = (
        rf"the train split: block 0, 1, 2, 3, 4 and {count - 5} more \(rows .*, \.\.\.\) has no label that is the end "
        r"token </s> \(id 2\), so the model would not learn to stop"
    )
    with pytest.raises(DataError, match=message):
        train(tiny_run, tmp_path / "adapter", blocks)


def test_a_row_cut_in_two_ends_once(tiny_run: TinyRun, tmp_path: Path) -> None:
    """A block without an end token is an error only if none of its rows' other blocks has it."""
    blocks = relabelled(
        tiny_run.blocks, "train", lambda n, labels: labels if n != 1 else [-100 if x == END else x for x in labels]
    )
    with pytest.raises(DataError, match="block 1 "):
        train(tiny_run, tmp_path / "adapter", blocks)
    names = blocks["train"]["row_ids"][:]
    names[1] = names[0]
    blocks["train"] = blocks["train"].remove_columns("row_ids").add_column("row_ids", names)
    train(tiny_run, tmp_path / "cut", blocks)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_block_that_trains_nothing(tiny_run: TinyRun, tmp_path: Path, split: str) -> None:
    blocks = relabelled(tiny_run.blocks, split, lambda n, labels: labels if n else [-100] * len(labels))
    rows = ", ".join(tiny_run.blocks[split][0]["row_ids"][:5])
    with pytest.raises(DataError, match=rf"the {split} split: block 0 \(rows {rows}.*\) trains no token"):
        train(tiny_run, tmp_path / "adapter", blocks)


@contextmanager
def collator(change: Callable[[list[dict[str, Any]]], None], after: Callable[[Any], None]) -> Iterator[None]:
    """The real collator with something done to its input and its output."""
    real = DataCollatorForLanguageModeling.torch_call

    def broken(self: Any, examples: list[dict[str, Any]]) -> dict[str, Any]:
        change(examples)
        batch: dict[str, Any] = real(self, examples)
        after(batch)
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataCollatorForLanguageModeling, "torch_call", broken)
        yield


def nothing(*_: object) -> None:
    pass


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_collator_that_drops_the_lengths(tiny_run: TinyRun, tmp_path: Path, attention: str, precision: str) -> None:
    def drop(examples: list[dict[str, Any]]) -> None:
        for example in examples:
            del example["seq_lengths"]

    message = r"neighbours in a packed block see each other \(block \d+ of the train split, rows .*, .*\): turning"
    with collator(drop, nothing), pytest.raises(TrainingError, match=message):
        train(tiny_run, tmp_path / "adapter", attention=attention, precision=precision)


def test_a_collator_that_masks_the_end_token(tiny_run: TinyRun, tmp_path: Path) -> None:
    """As transformers' own does where the padding token is the end token."""

    def mask(batch: dict[str, torch.Tensor]) -> None:
        batch["labels"][batch["labels"] == END] = -100

    message = "DataCollatorForLanguageModeling takes the end token out of the labels"
    with collator(nothing, mask), pytest.raises(TrainingError, match=message):
        train(tiny_run, tmp_path / "adapter")


def test_the_largest_micro_batch_comes_first(tiny_run: TinyRun, tmp_path: Path) -> None:
    with no_memory_for(10**9, training=True) as sizes:
        train(tiny_run, tmp_path / "adapter", max_steps=12)
    assert sizes[0] == max(sizes)
    assert len(set(sizes)) > 1
    message = (
        rf"the pre-flight failed at the training step of {sizes[0]:,} tokens: OutOfMemoryError: CUDA out of memory\.; "
        r"where memory is short, set parameters\.plan\.micro_batch to 1"
    )
    with no_memory_for(sizes[0], training=True) as failed, pytest.raises(TrainingError, match=message):
        train(tiny_run, tmp_path / "failed")
    assert len(failed) == 1, "no step was taken"


def test_an_evaluation_that_fails(tiny_run: TinyRun, tmp_path: Path) -> None:
    with (
        no_memory_for(100, training=False),
        pytest.raises(TrainingError, match=r"the pre-flight failed at the evaluation batch of [\d,]+ tokens: OutOf"),
    ):
        train(tiny_run, tmp_path / "adapter")


def test_a_checkpoint_folder_that_cannot_be_made(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Checkpoints(tmp_path / "file", "work", CheckpointParameters())
    with pytest.raises(DeviceError, match=r"file/work: no checkpoint can be written there \(Not a directory\)"):
        train(tiny_run, tmp_path / "adapter", store=store)


def test_a_checkpoint_that_cannot_be_written(tiny_run: TinyRun, tmp_path: Path) -> None:
    """No file may grow beyond 20 kB, and the weights take more."""
    store = Checkpoints(tmp_path / "checkpoints", "work", CheckpointParameters())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"the pre-flight failed at the checkpoint: .*; look at parameters\.ch"):
            train(tiny_run, tmp_path / "adapter", store=store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(store.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "method"), [("weights", "_load_from_checkpoint"), ("random numbers", "_load_rng_state")]
)
def test_a_checkpoint_that_does_not_give_back(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, method: str
) -> None:
    """One way of reading it that reads nothing."""
    monkeypatch.setattr(f"steps.train.trainer.ResumableTrainer.{method}", nothing)
    with pytest.raises(PipelineError, match=f"a checkpoint does not give back the {part}: a resumed run would differ"):
        train(tiny_run, tmp_path / "adapter")
