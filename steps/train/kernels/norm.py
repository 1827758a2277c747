"""RMSNorm with a frozen weight, alone and after the sum of the residual stream, each as one autograd function.

Both keep the norm's input alone, which the residual stream keeps anyway.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch

from steps.train.kernels import elementwise
from steps.train.kernels.lora_linear import NOTHING, Known, Origin
from steps.train.kernels.memory import aligned_rows
from steps.train.kernels.weights import Scratch


class FrozenRmsNorm(torch.autograd.Function):
    """Llama's norm; no gradient for the weight."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """The normed input."""
        ctx.save_for_backward(x, weight)
        ctx.epsilon = epsilon
        return elementwise.rms_norm(x, weight, epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradient of x."""
        x, weight = ctx.saved_tensors
        by_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        elementwise.add_norm_backward(None, gradient, x, weight, ctx.epsilon, by_x.view(-1, x.shape[-1]))
        return by_x, None, None


@dataclass(frozen=True)
class Normed:
    """The norm of a sum, made together with it."""

    module: torch.nn.Module  # the norm that it is the output of
    output: torch.Tensor
    known: Known


@dataclass(frozen=True)
class NormCall:
    """What autograd does not see of one call."""

    epsilon: float
    room: torch.Tensor  # [tokens, width + margin]: the norm's output is its first columns
    scales: torch.Tensor | None  # [tokens, 1], where they are wanted
    gradient_margin: int
    scratch: Scratch


class AddNorm(torch.autograd.Function):
    """residual + delta, and its norm. Without delta it hands on the residual, so that autograd has nothing to add."""

    @staticmethod
    def forward(
        ctx: Any, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, call: NormCall
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum and the normed sum."""
        normed = call.room.data[:, : residual.shape[-1]]  # .data: the margin's writer does not change this tensor
        total = elementwise.add_norm(residual, delta, weight, call.epsilon, normed, call.scales)
        ctx.save_for_backward(total, weight)
        ctx.set_materialize_grads(False)
        ctx.epsilon, ctx.margin, ctx.scratch = call.epsilon, call.gradient_margin, call.scratch
        ctx.sum = delta is not None
        return total, normed.view(residual.shape)

    @staticmethod
    def backward(
        ctx: Any, by_total: torch.Tensor | None, by_normed: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """One gradient for both parts of the sum."""
        if by_normed is None:
            return by_total, by_total if ctx.sum else None, None, None
        total, weight = ctx.saved_tensors
        width = total.shape[-1]
        room = aligned_rows(total.numel() // width, width + ctx.margin, total)
        out = room[:, :width]
        elementwise.add_norm_backward(by_total, by_normed, total, weight, ctx.epsilon, out)
        gradient = out.view(total.shape)
        if ctx.margin:
            ctx.scratch.gradients.give(room, gradient)
        return gradient, gradient if ctx.sum else None, None, None


@dataclass(frozen=True)
class NormSite:
    """A norm at its place in the residual stream."""

    module: torch.nn.Module
    scratch: Scratch
    remake: bool  # who reads its output makes it again instead of keeping it
    margin: int  # columns that the reader wants beside it
    gradient_margin: int  # columns that the backward pass of what is added before it wants beside its gradient

    def __call__(self, residual: torch.Tensor, delta: torch.Tensor | None) -> tuple[torch.Tensor, Normed]:
        """The sum, and its norm."""
        weight, epsilon = cast(torch.Tensor, self.module.weight), cast(float, self.module.variance_epsilon)
        if delta is not None and delta.dtype != residual.dtype:
            residual, delta = residual + delta, None
        if residual.dtype != weight.dtype:  # the result's type is then the wider one's
            return residual, Normed(self.module, self.module(residual), NOTHING)
        width = residual.shape[-1]
        room = aligned_rows(residual.numel() // width, width + self.margin, residual)
        scales = room.new_empty((room.shape[0], 1), dtype=torch.float32) if self.remake else None
        call = NormCall(epsilon, room, scales, self.gradient_margin, self.scratch)
        total, output = AddNorm.apply(residual, delta, weight, call)  # type: ignore[no-untyped-call]  # torch's
        origin = Origin(total, weight, epsilon, scales) if self.remake else None
        return total, Normed(self.module, output, Known(origin, room if self.margin else None))
