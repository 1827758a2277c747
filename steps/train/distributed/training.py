"""Lets a trainer share its optimiser steps with other processes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file

from steps.rows import list_lengths
from steps.tokenizer import IGNORED
from steps.train.adapter import trainable
from steps.train.checkpoint import Checkpoints
from steps.train.distributed.exchange import GradientSum, everybodys
from steps.train.distributed.order import RankOrder, with_filler
from steps.train.distributed.parts import Parts
from steps.train.distributed.ranks import ALONE, Ranks
from steps.train.meter import tokens_in

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer
else:
    SFTTrainer = object

RANDOM = "random.safetensors"
"""States of torch's random numbers, a row a process."""

SEED_STEP = 1_000_003
"""Between the seeds of two processes, whose dropout must differ."""


class SharedTraining(SFTTrainer):
    """To be named before TRL's trainer among the bases; alone, it changes nothing.

    transformers and accelerate know of one process. What they would do for several is done here, since they would wrap
    the model, which a captured step can't have, and repeat blocks where the end of an epoch has too few.
    """

    ranks: Ranks = ALONE
    parts: Parts = Parts()
    counted: list[torch.Tensor]
    """Tokens of each micro-batch of the optimiser step under way, where there are several processes."""

    def get_train_dataloader(self) -> "torch.utils.data.DataLoader[Any]":
        """This process's share of the blocks."""
        if self.ranks.alone:
            alone: torch.utils.data.DataLoader[Any] = super().get_train_dataloader()
            return alone
        blocks: Any = self.train_dataset
        self._gradients = GradientSum(self.ranks)
        self._longest = int(list_lengths(blocks, "input_ids").max()) * self.args.per_device_train_batch_size
        size, seed = self.args.per_device_train_batch_size, self.args.data_seed
        order = RankOrder(len(blocks), size, self.ranks, self.args.seed if seed is None else seed)
        loader: torch.utils.data.DataLoader[Any] = self._get_dataloader(
            dataset=with_filler(blocks),
            description="Training",
            batch_size=size,
            sampler_fn=lambda _: order,
            is_training=True,
        )
        return loader

    def count_batch(self, inputs: dict[str, Any]) -> None:
        """Note how many tokens a micro-batch has; the filler, the only one without a label, has none."""
        self.counted.append((inputs["labels"] != IGNORED).any() * tokens_in(inputs))

    def exchange(
        self, batches: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """Sum the gradients, and give tokens and losses of all processes' micro-batches, and the number of tokens."""
        if not self.parts.sharded:  # FSDP2 sums up what it shares out
            self._gradients(list(trainable(cast("torch.nn.Module", self.model)).values()))
        tokens = self.ranks.add(torch.stack(self.counted).sum())
        self.counted.clear()
        return everybodys(batches, self._longest, self.ranks), tokens

    @contextmanager
    def writing(self, checkpoints: Checkpoints) -> Iterator[Path]:
        """A checkpoint's folder that all processes may write into; it counts when all have."""
        with ExitStack() as first:
            folder = checkpoints.unfinished(self.state.global_step)
            if self.ranks.first:
                first.enter_context(checkpoints.writing(self.state.global_step))
            self.ranks.wait()
            yield folder
            self.ranks.wait()
        self.ranks.wait()

    def part_random_numbers(self) -> None:
        """From here on each process draws its own; what was drawn so far, the adapter, is the same in all."""
        if not self.ranks.first:
            torch.manual_seed(self.args.seed + SEED_STEP * self.ranks.number)

    def write_random_numbers(self, folder: Path) -> None:
        """Those of the processes besides the first, which is saved as one alone is; the first writes."""
        if self.ranks.alone:
            return
        states = self.ranks.collect((torch.get_rng_state(), torch.cuda.get_rng_state_all()))
        if self.ranks.first:
            found = {"cpu": torch.stack([cpu for cpu, _ in states])}
            if torch.cuda.is_available():
                found["cuda"] = torch.stack([cuda[0] for _, cuda in states])
            save_file(found, folder / RANDOM)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """As they were; a process that the checkpoint's training had not begins numbers of its own."""
        super()._load_rng_state(checkpoint)
        if self.ranks.first or checkpoint is None:
            return
        path = Path(checkpoint) / RANDOM
        states = load_file(path) if path.is_file() else {}
        if states and self.ranks.number < len(states["cpu"]):
            torch.set_rng_state(
                states["cpu"][self.ranks.number].clone()
            )  # a view would lie askew in the file's memory, and crash torch
            if "cuda" in states:
                torch.cuda.set_rng_state_all([states["cuda"][self.ranks.number].clone()])
        else:
            torch.manual_seed(self.args.seed + SEED_STEP * self.ranks.number + self.state.global_step)
