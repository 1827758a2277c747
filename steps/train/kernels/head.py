"""Cross entropy of a frozen head without all its logits: loss and gradient in one pass over chunks of tokens.

The loss's scale is known beforehand, so its gradient by the hidden states is made while the logits are there: two
products where a backward pass of its own would make the logits again and take three.
"""

from typing import Any

import torch

from steps.train.kernels import elementwise
from steps.train.kernels.memory import aligned_rows

CHUNK = 4096
"""Tokens whose logits are held at a time."""


class FrozenHeadLoss(torch.autograd.Function):
    """Sum over the tokens of their cross entropy, times ``scale``; no gradient for the head."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, scale: torch.Tensor, ignored: int
    ) -> torch.Tensor:
        """``hidden`` [tokens, width], ``weight`` [words, width] of one type; the logits are rounded to it."""
        tokens, words = hidden.shape[0], weight.shape[0]
        logits = aligned_rows(min(tokens, CHUNK), words, hidden)
        gradient = torch.empty_like(hidden)
        losses = []
        for rows, target, out in zip(*(torch.split(each, CHUNK) for each in (hidden, targets, gradient)), strict=True):
            tile = torch.mm(rows, weight.t(), out=logits[: rows.shape[0]])
            losses.append(elementwise.cross_entropy(tile, target, scale, ignored))
            torch.mm(tile, weight, out=out)
        ctx.save_for_backward(gradient)
        return torch.cat(losses).sum() * scale

    @staticmethod
    def backward(ctx: Any, by_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradient of the hidden states."""
        (gradient,) = ctx.saved_tensors
        return gradient * by_loss.to(gradient.dtype), None, None, None, None
