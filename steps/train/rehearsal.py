"""Before a training begins every part of it is tried once: what would fail after hours fails in the first minute."""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from steps.errors import PipelineError, TrainingError
from steps.rows import list_lengths
from steps.tokenizer import IGNORED
from steps.train.adapter import trainable
from steps.train.checkpoint import Checkpoints
from steps.train.stepdown import FEWER, OutOfMemory, PreflightError, is_out_of_memory
from steps.train.targets import require_targets

if TYPE_CHECKING:
    from steps.train.trainer import ResumableTrainer

NEIGHBOUR_TOKENS = 32
"""Of each of two packed sequences: enough to see whether one reaches the other, too few to cost anything."""

ROUNDING = 0.02
"""Relative difference of logits that bfloat16 may make on a GPU; a neighbour in sight makes tenths."""


class Rehearsal(TrainerCallback):
    """Calls :func:`rehearse` when model, optimiser and schedule are the run's and a checkpoint to resume is loaded."""

    def __init__(self, trainer: "ResumableTrainer", blocks: DatasetDict, checkpoints: Checkpoints) -> None:
        self.trainer, self.blocks, self.checkpoints = trainer, blocks, checkpoints
        self.seconds = 0.0  # where nothing is left to train nothing is rehearsed

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Rehearse, and say what was tried."""
        start = time.monotonic()
        done = rehearse(self.trainer, self.blocks, self.checkpoints)
        self.seconds = time.monotonic() - start
        print(f"  train: pre-flight passed in {self.seconds:.1f} s: {', '.join(done)}", flush=True)


def rehearse(trainer: "ResumableTrainer", blocks: DatasetDict, checkpoints: Checkpoints) -> list[str]:
    """Try every part of the training once, and leave weights, optimiser, random numbers and figures as they were.

    Args:
        trainer: inside its ``train()``, before the first step.
        blocks: splits train and validation.
        checkpoints: beside them one is written, read back and removed.

    Returns:
        What was tried: only packed blocks have neighbours, and only a validation split is evaluated.

    Raises:
        DataError: a block trains no token, or rows never train the end token.
        TrainingError: a part fails, or does not do what it must.
    """
    tokenizer = cast("Any", trainer.processing_class)
    splits = {name: split for name, split in blocks.items() if name in ("train", "validation") and len(split)}
    for name, split in splits.items():
        require_targets(split, tokenizer.eos_token_id, tokenizer.eos_token, f"the {name} split")
    done = ["end token trained"]
    with _without_trace(trainer):
        if "seq_lengths" in blocks["train"].column_names:
            with _tried("packed block", "use parameters.prompt.packing none, whose blocks have no neighbours"):
                done += _require_strangers(trainer, blocks["train"])
        for name, split in splits.items():
            largest = _largest(split, trainer.args.per_device_train_batch_size)
            tokens = int(list_lengths(largest, "input_ids").sum())
            what = "training step" if name == "train" else "evaluation batch"
            done.append(f"{what} of {tokens:,} tokens")
            with _tried(done[-1], FEWER):
                (_train if name == "train" else _evaluate)(trainer, largest)
        with _tried("checkpoint", "look at parameters.checkpoints.folder, or name another one"):
            _require_checkpoint(trainer, checkpoints)
    return [*done, "checkpoint"]


@contextmanager
def _tried(part: str, advice: str) -> Iterator[None]:
    """Name the part of the pre-flight that fails, whatever the error is."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        kind = OutOfMemory if is_out_of_memory(error) else PreflightError
        raise kind(f"the pre-flight failed at the {part}: {type(error).__name__}: {first}; {advice}") from error


@contextmanager
def _without_trace(trainer: "ResumableTrainer") -> Iterator[None]:
    """Put back what a forward or backward pass changes; the weights no part changes for good."""
    state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
    random.setstate(state)
    np.random.set_state(numpy_state)
    trainer.adapted.train()
    trainer.adapted.zero_grad()
    trainer.forget_batches()


def _largest(split: Dataset, count: int) -> Dataset:
    """The blocks of the micro-batch with the most tokens that can be."""
    longest = np.argsort(-list_lengths(split, "input_ids"), kind="stable")[:count]
    return split.select(longest)


def _batch(trainer: "ResumableTrainer", blocks: Dataset) -> dict[str, Any]:
    """The blocks as one batch, through the trainer's own choice of columns, collator and device."""
    (batch,) = trainer.get_eval_dataloader(blocks)
    return dict(batch)


def _train(trainer: "ResumableTrainer", blocks: Dataset) -> None:
    """Forward and backward.

    Raises:
        TrainingError: the collator takes labels away.
    """
    batch = _batch(trainer, blocks)
    end = cast("Any", trainer.processing_class).eos_token_id
    if any(end in block["labels"] for block in blocks) and not bool((batch["labels"] == end).any()):
        raise TrainingError(
            f"{type(trainer.data_collator).__name__} takes the end token out of the labels, so that the model would "
            "not learn to stop; is it the padding token? Choose a base model whose tokenizer has another one"
        )
    trainer.training_step(trainer.model_wrapped, batch, (batch["labels"] != IGNORED).sum())


def _evaluate(trainer: "ResumableTrainer", blocks: Dataset) -> None:
    loader = trainer.get_eval_dataloader(blocks)
    trainer.evaluation_loop(loader, "Pre-flight", prediction_loss_only=True)


def _require_strangers(trainer: "ResumableTrainer", split: Dataset) -> list[str]:
    """Turn a sequence round: the logits of its neighbour in the block must stay.

    Of the first block that has two sequences; the same tokens in another order, so that one which gives no number
    does so both times.

    Raises:
        TrainingError: the neighbour sees it.
    """
    number, block = next(((n, one) for n, one in enumerate(split) if len(one["seq_lengths"]) > 1), (0, None))
    if block is None:
        return []
    first, second = block["seq_lengths"][:2]
    tokens = block["input_ids"][:first][:NEIGHBOUR_TOKENS]
    neighbour = block["input_ids"][first:][:second][:NEIGHBOUR_TOKENS]
    one, other = (_logits(trainer, turned, neighbour) for turned in (tokens, tokens[::-1]))
    difference = float((one - other).norm() / one.norm())
    if difference > (0.0 if one.device.type == "cpu" else ROUNDING):
        raise TrainingError(
            f"neighbours in a packed block see each other (block {number} of the train split, rows "
            f"{', '.join(block['row_ids'][:2])}): turning the first one round moves the second one's logits by "
            f"{difference:.1%}; use another parameters.training.attention, or parameters.prompt.packing none"
        )
    return ["packed neighbours apart"]


def _logits(trainer: "ResumableTrainer", tokens: list[int], neighbour: list[int]) -> torch.Tensor:
    """The neighbour's logits behind the tokens in one packed block."""
    ids = tokens + neighbour
    block = {"input_ids": ids, "labels": ids, "seq_lengths": [len(tokens), len(neighbour)]}
    batch = _batch(trainer, Dataset.from_list([block]))
    del batch["labels"]
    trainer.adapted.eval()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        logits: torch.Tensor = trainer.model_wrapped(**batch, use_cache=False).logits
    return logits.flatten(0, 1)[len(tokens) :].float()


def _require_checkpoint(trainer: "ResumableTrainer", checkpoints: Checkpoints) -> None:
    """Write a checkpoint, disturb what it holds, and read it back.

    Raises:
        TrainingError: what is read is not what was written.
    """
    trial = Checkpoints(checkpoints.folder, ".writing-preflight", checkpoints.parameters)  # swept up after a kill
    if trainer.ranks.first:
        trial.folder.mkdir()
    before = trainer.fingerprints()
    try:
        with trainer.writing(trial) as folder:
            trainer.write_state(folder)
        written = trial.newest()
        if written is None:
            raise TrainingError(f"{trial.folder}: a checkpoint is not read back as it was written; use another disk")
        for weight in trainable(trainer.adapted).values():
            weight.data.zero_()
        set_seed(0)
        trainer.read_state(written)
        trainer.ranks.wait()
    finally:
        if trainer.ranks.first:
            shutil.rmtree(trial.folder, ignore_errors=True)
    wrong = [name for name, digest in trainer.fingerprints().items() if digest != before[name]]
    if wrong:
        raise TrainingError(f"a checkpoint does not give back the {', '.join(wrong)}: a resumed run would differ")
