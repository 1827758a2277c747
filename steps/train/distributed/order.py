"""Which blocks a process takes: those of one process's order, cut so that every optimiser step learns from the same."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset, concatenate_datasets

from steps.tokenizer import IGNORED
from steps.train.distributed.ranks import Ranks

FILLER_TOKENS = 8


class RankOrder(torch.utils.data.Sampler[int]):
    """Numbers of the blocks of one process, epoch after epoch.

    All processes go through the order that one alone would have, ``micro_batch`` blocks each in turn. Where the end of
    an epoch has none left for a process, it takes the filler, block number ``blocks``: all take as many micro-batches.
    """

    def __init__(self, blocks: int, micro_batch: int, ranks: Ranks, seed: int) -> None:
        self.blocks, self.micro_batch, self.ranks = blocks, micro_batch, ranks
        self.whole = SeedableRandomSampler(range(blocks), data_seed=seed)

    def set_epoch(self, epoch: int) -> None:
        """accelerate's loader says so before each epoch."""
        self.whole.set_epoch(epoch)

    def __len__(self) -> int:
        full, rest = divmod(self.blocks, self.micro_batch * self.ranks.size)
        return full * self.micro_batch + (self._of_rest(rest) if rest else 0)

    def __iter__(self) -> Iterator[int]:
        order = list(self.whole)
        together = self.micro_batch * self.ranks.size
        for start in range(0, self.blocks, together):
            own = start + self.ranks.number * self.micro_batch
            yield from order[own : own + self.micro_batch] or [self.blocks]

    def _of_rest(self, rest: int) -> int:
        own = rest - self.ranks.number * self.micro_batch
        return min(self.micro_batch, own) if own > 0 else 1


def with_filler(blocks: Dataset, count: int = 1) -> Dataset:
    """The blocks and, at the end, ``count`` short ones without a label: they move no weight and count in no loss."""
    if not count:
        return blocks
    first = blocks[0]
    filler: dict[str, Any] = {name: value[:FILLER_TOKENS] for name, value in first.items()}
    length = len(filler["input_ids"])
    filler["labels"] = [IGNORED] * length
    if "seq_lengths" in filler:
        filler["seq_lengths"] = [length]
    return concatenate_datasets([blocks, Dataset.from_list([filler] * count, features=blocks.features)])


def share(blocks: Dataset, ranks: Ranks) -> Dataset:
    """The blocks on which one process measures a loss: every ``size``-th one; all have as many."""
    if ranks.alone or not len(blocks):
        return blocks
    own = blocks.select(range(ranks.number, len(blocks), ranks.size)) if ranks.number < len(blocks) else None
    most = -(-len(blocks) // ranks.size)
    if own is None:
        return with_filler(blocks.select([0]), most).select(range(1, 1 + most))
    return with_filler(own, most - len(own))
