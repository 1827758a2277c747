"""RMSNorm with a frozen weight: keeps its input alone, which the residual stream keeps anyway."""

from typing import Any

import torch

from steps.train.kernels import elementwise


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
        return elementwise.rms_norm_backward(gradient, x, weight, ctx.epsilon), None, None
