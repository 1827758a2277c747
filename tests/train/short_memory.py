"""Memory that is short at a chosen moment: another process has it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

MEMORY = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate all of it")


@contextmanager
def no_memory_at(call: int, *, optimizer: bool = False) -> Iterator[list[int]]:
    """The one training pass, or optimiser step, of that number finds none; gives the numbers of those that were."""
    calls: list[int] = []

    def count(*_: object) -> None:
        calls.append(len(calls) + 1)
        if len(calls) == call:
            raise MEMORY

    with register_optimizer_step_pre_hook(count) if optimizer else _before_passes(count, training=True):
        yield calls


@contextmanager
def no_memory_for(tokens: int, *, training: bool) -> Iterator[list[int]]:
    """A batch of so many tokens or more finds none; gives the sizes of the batches that were tried."""
    sizes: list[int] = []

    def check(size: int) -> None:
        sizes.append(size)
        if size >= tokens:
            raise MEMORY

    with _before_passes(check, training=training):
        yield sizes


def _before_passes(act: Callable[[int], None], *, training: bool) -> RemovableHandle:
    """Tell ``act`` how many tokens a pass is to take, before each of training or of evaluation."""

    def look(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and module.training == training:
            act(inputs[0].numel())

    return register_module_forward_pre_hook(look)
