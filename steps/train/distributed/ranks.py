"""What the processes of a training tell each other; alone, a process tells nobody and waits for nobody."""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the training.

    Every call is made by all of them, in the same order. Tensors go by NCCL where they are on a GPU, without a wait;
    numbers and objects go by gloo, past the GPU's queue.
    """

    number: int = 0  # this process, from 0
    size: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.number == 0

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over all processes, in place."""
        if not self.alone:
            dist.all_reduce(tensor)
        return tensor

    def follow(self, tensor: torch.Tensor) -> None:
        """Take over the first process's, in place."""
        if not self.alone:
            dist.broadcast(tensor, 0)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all processes, which have one shape, stacked in their order."""
        if self.alone:
            return tensor[None]
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.stack(parts)

    def collect(self, value: Value) -> list[Value]:
        """The values of all processes, in their order."""
        if self.alone:
            return [value]
        values: list[Value] = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is set in any process."""
        if self.alone:
            return list(flags)
        numbers = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return [bool(number) for number in numbers]

    def wait(self) -> None:
        """Until all processes are here."""
        self.any(False)


ALONE = Ranks()
