"""Loss and gradient norm of an optimiser step, on their way from the GPU, which isn't made to wait for them."""

import math
from dataclasses import dataclass
from typing import Self

import torch


@dataclass
class StepFigures:
    """What is known of a step when its gradients are: the figures themselves may still have to be computed."""

    step: int
    learning_rate: float
    tokens: list[torch.Tensor]  # of each micro-batch
    values: torch.Tensor  # in the processor's memory: each micro-batch's share of the loss, then the gradient's norm
    arrived: torch.cuda.Event | None  # None: they are there
    scale_is_sought: bool  # float16's loss scaling leaves the step out if its norm is not finite

    @classmethod
    def fetch(
        cls,
        step: int,
        learning_rate: float,
        batches: list[tuple[torch.Tensor, torch.Tensor]],
        norm: torch.Tensor,
        *,
        scale_is_sought: bool,
    ) -> tuple[Self, torch.Tensor]:
        """Have them copied, and give them also where they are; ``batches`` are the tokens and loss of each."""
        tokens = [each for each, _ in batches]
        values = torch.stack([*(loss.detach().float() for _, loss in batches), norm.detach().float()])
        if not values.is_cuda:
            return cls(step, learning_rate, tokens, values, None, scale_is_sought), values
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types there
        arrived.record()
        return cls(step, learning_rate, tokens, host, arrived, scale_is_sought), values

    def are_there(self, *, wait: bool) -> bool:
        """Whether they have arrived; with ``wait`` they have."""
        if self.arrived is None:
            return True
        if wait:
            self.arrived.synchronize()
        return bool(self.arrived.query())  # type: ignore[no-untyped-call]  # torch has no types there

    @property
    def losses(self) -> list[float]:
        """Of the micro-batches; their sum is the mean over the step's trained tokens."""
        return [float(value) for value in self.values[:-1]]

    @property
    def norm(self) -> float:
        """Of the gradient before clipping."""
        return float(self.values[-1])

    @property
    def loss_is_finite(self) -> bool:
        """Of every micro-batch."""
        return all(math.isfinite(loss) for loss in self.losses)

    @property
    def is_finite(self) -> bool:
        """Losses and norm."""
        return self.loss_is_finite and math.isfinite(self.norm)
