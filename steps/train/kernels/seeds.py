"""Where dropout's seeds come from: torch's CPU generator, or memory on the device that a captured step reads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SEEDS = 1 << 31
"""Number of values that a seed can take."""

DRAWS = 1 << 24
"""Number of values that a dropout draw can take."""

Seed = int | torch.Tensor
"""A number, or one int32 on the device."""
Drawn = tuple[Seed, ...]


class Seeds:
    """Draws the seeds of each forward pass, and hands out the same ones where a pass is made again.

    A captured step would replay the seeds that it was captured with. So its kernels read them from ``memory``, which is
    filled before each replay with what the CPU generator would have given to the same calls.
    """

    def __init__(self) -> None:
        self.drawn = 0  # by the last captured pass
        self.memory: torch.Tensor | None = None
        self._reading = False
        self._kept: list[Drawn] | None = None
        self._again: Iterator[Drawn] | None = None

    def draw(self, count: int) -> Drawn:
        """The seeds of one call."""
        if self._again is not None:
            return next(self._again)
        seeds: Drawn
        if self.memory is None or not self._reading:
            seeds = tuple(torch.randint(SEEDS, (count,)).tolist())
        else:
            seeds = tuple(self.memory[self.drawn : self.drawn + count].unbind())
        self.drawn += count
        if self._kept is not None:
            self._kept.append(seeds)
        return seeds

    def fill(self) -> None:
        """Draw all seeds of one pass into the memory."""
        if self.memory is None:
            return
        seeds = torch.randint(SEEDS, (self.memory.numel(),)).to(torch.int32)
        if self.memory.is_cuda:
            seeds = seeds.pin_memory()  # a copy from other memory may wait for the GPU
        self.memory.copy_(seeds, non_blocking=True)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Take seeds from the memory, if there is one, from its beginning; count them."""
        self.drawn, self._reading = 0, True
        try:
            yield
        finally:
            self._reading = False

    @contextmanager
    def keeping(self, kept: list[Drawn]) -> Iterator[None]:
        """Note what is drawn."""
        self._kept = kept
        try:
            yield
        finally:
            self._kept = None

    @contextmanager
    def again(self, kept: list[Drawn]) -> Iterator[None]:
        """Hand out what was noted."""
        self._again = iter(kept)
        try:
            yield
        finally:
            self._again = None
