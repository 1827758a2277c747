"""y_i = x W_i^T + scale_i drop_i(x) A_i^T B_i^T for projections that read the same x, as one autograd function.

PEFT's own path takes about ten kernels a projection, keeps a dropout mask and the dropped input of each, and casts
wide tensors. Here one input is kept for all projections, the sums are folded into the matrix products, and dropout is
made again from its seed. Weights W are frozen; A and B may have another type than x: the thin side is cast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steps.train.kernels import elementwise
from steps.train.kernels.seeds import Drawn
from steps.train.kernels.weights import FrozenWeights

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Branches:
    """What the LoRA branches of one call have besides their weights."""

    scales: tuple[float, ...]
    ranks: tuple[int, ...]
    probability: float  # of dropout; 0 outside training
    seeds: Drawn


@dataclass(frozen=True)
class Origin:
    """Where an input came from, so that it need not be kept: the norm of a tensor that is kept anyway."""

    source: torch.Tensor
    weight: torch.Tensor
    epsilon: float

    def remake(self) -> torch.Tensor:
        """The input again, by the same kernel."""
        return elementwise.rms_norm(self.source, self.weight, self.epsilon)


def stacked(a: Tensors) -> torch.Tensor:
    """All A as one matrix: [sum of ranks, inputs]."""
    return a[0] if len(a) == 1 else torch.cat(list(a))


def thin_products(x: torch.Tensor, a: Tensors, branches: Branches) -> torch.Tensor:
    """drop_i(x) A_i^T side by side: [tokens, sum of ranks]; one product where there is no dropout."""
    if not branches.probability:
        return x @ stacked(a).t()
    result = x.new_empty(x.shape[0], sum(branches.ranks))
    for part, down, seed in zip(result.split_with_sizes(branches.ranks, dim=1), a, branches.seeds, strict=True):
        torch.mm(elementwise.dropout(x, branches.probability, seed), down.t(), out=part)
    return result


def add_branches(outputs: Tensors, thin: torch.Tensor, b: Tensors, branches: Branches) -> None:
    """Add scale_i thin_i B_i^T to each output in place."""
    for output, part, up, scale in zip(
        outputs, thin.split_with_sizes(branches.ranks, dim=1), b, branches.scales, strict=True
    ):
        output.addmm_(part, up.t(), alpha=scale)


def thin_gradients(
    gradients: Tensors, thin: torch.Tensor, b: Tensors, branches: Branches
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Gradient of the thin products, and of each B."""
    by_thin = torch.empty_like(thin)
    by_b = []
    for gradient, part, kept, up, scale in zip(
        gradients,
        by_thin.split_with_sizes(branches.ranks, dim=1),
        thin.split_with_sizes(branches.ranks, dim=1),
        b,
        branches.scales,
        strict=True,
    ):
        part.addmm_(gradient, up, beta=0, alpha=scale)
        by_b.append(torch.empty_like(up).addmm_(gradient.t(), kept, beta=0, alpha=scale))
    return by_thin, by_b


def add_input_gradient(by_x: torch.Tensor, by_thin: torch.Tensor, a: Tensors, branches: Branches) -> None:
    """Add the branches' share of the input's gradient in place."""
    if not branches.probability:
        by_x.addmm_(by_thin, stacked(a))
        return
    for part, down, seed in zip(by_thin.split_with_sizes(branches.ranks, dim=1), a, branches.seeds, strict=True):
        elementwise.add_dropped(by_x, part @ down, branches.probability, seed)


def a_gradients(by_thin: torch.Tensor, x: torch.Tensor, branches: Branches) -> list[torch.Tensor]:
    """Gradient of each A."""
    if not branches.probability:
        return list((by_thin.t() @ x).split_with_sizes(branches.ranks))
    return [
        part.t() @ elementwise.dropout(x, branches.probability, seed)
        for part, seed in zip(by_thin.split_with_sizes(branches.ranks, dim=1), branches.seeds, strict=True)
    ]


def cast(tensors: Tensors, dtype: torch.dtype) -> list[torch.Tensor]:
    """The adapter's weights in the type of the products."""
    return [tensor.to(dtype) for tensor in tensors]


def like(gradients: Tensors, parameters: Tensors) -> list[torch.Tensor]:
    """Gradients in the type of the weights they belong to."""
    return [gradient.to(parameter.dtype) for gradient, parameter in zip(gradients, parameters, strict=True)]


class Projections(torch.autograd.Function):
    """The function above; returns one output a projection."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        origin: Origin | None,
        weights: FrozenWeights,
        branches: Branches,
        *adapter: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """``adapter`` is all A, then all B."""
        rows, count = x.reshape(-1, x.shape[-1]), len(weights.outputs)
        a, b = cast(adapter[:count], x.dtype), cast(adapter[count:], x.dtype)
        # One product a projection: attention wants each output contiguous, and at these sizes a wide one is no faster
        outputs = [rows @ part.t() for part in weights.matrix().split_with_sizes(weights.outputs)]
        thin = thin_products(rows, a, branches)
        add_branches(outputs, thin, b, branches)
        kept = (x,) if origin is None else (origin.source, origin.weight)
        ctx.save_for_backward(thin, *adapter, *kept)
        ctx.epsilon = None if origin is None else origin.epsilon
        ctx.weights, ctx.branches = weights, branches
        return tuple(output.view(*x.shape[:-1], -1) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B."""
        weights, branches = ctx.weights, ctx.branches
        count = len(weights.outputs)
        thin, *rest = ctx.saved_tensors
        adapter, kept = rest[: 2 * count], rest[2 * count :]
        x = kept[0] if ctx.epsilon is None else Origin(kept[0], kept[1], ctx.epsilon).remake()
        rows = x.reshape(-1, x.shape[-1])
        flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        by_thin, by_b = thin_gradients(flat, thin, cast(adapter[count:], x.dtype), branches)
        by_a = a_gradients(by_thin, rows, branches)
        by_x = None
        if ctx.needs_input_grad[0]:
            first, *others = weights.matrix().split_with_sizes(weights.outputs)
            by_x = flat[0] @ first
            for gradient, part in zip(flat[1:], others, strict=True):
                by_x.addmm_(gradient, part)
            add_input_gradient(by_x, by_thin, cast(adapter[:count], x.dtype), branches)
        return (
            None if by_x is None else by_x.view(x.shape),
            None,
            None,
            None,
            *like([*by_a, *by_b], adapter),
        )
