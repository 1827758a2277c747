"""y_i = x W_i^T + scale_i drop_i(x) A_i^T B_i^T for projections that read the same x, as one autograd function.

PEFT's own path takes about ten kernels a projection, keeps a dropout mask and the dropped input of each, and casts
wide tensors. Here one input is kept for all projections, the sums are folded into the matrix products, and dropout is
made again from its seed. Weights W are frozen; A and B may have another type than x: the thin side is cast.
"""

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steps.train.kernels import elementwise
from steps.train.kernels.memory import aligned_rows
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
    scales: torch.Tensor | None = None  # [tokens, 1]: what the norm multiplied the rows by

    def remake(self, margin: int) -> torch.Tensor:
        """The input again, by the same kernel, with an unset margin: [tokens, width + margin]."""
        width = self.source.shape[-1]
        result = aligned_rows(self.source.numel() // width, width + margin, self.source)
        elementwise.rms_norm(self.source, self.weight, self.epsilon, out=result[:, :width])
        return result


@dataclass(frozen=True)
class Known:
    """What a norm says of its output, or attention of its result."""

    origin: Origin | None = None  # it may be made again from there
    room: torch.Tensor | None = None  # [tokens, width + margin], whose first columns it is


NOTHING = Known()


class Input:
    """The input x of a group and its thin products: as the forward pass reads them, and as they are kept."""

    def __init__(self, x: torch.Tensor, known: Known, a: Tensors, branches: Branches) -> None:
        self.x, self.known = x, known
        self.rows = x.reshape(-1, x.shape[-1])
        margin = None if known.room is None else known.room[:, x.shape[-1] :]
        self.thin = thin_products(self.rows, a, branches, margin if known.origin is None else None)
        if margin is not None and known.origin is not None:  # to be kept without x, so in memory of their own
            margin.copy_(self.thin)

    def sides(self) -> torch.Tensor:
        """x and the thin products side by side."""
        return torch.cat([self.rows, self.thin], dim=1) if self.known.room is None else self.known.room

    def keep(self, ctx: Any, *others: torch.Tensor | None) -> None:
        """Save what the backward pass needs of it, after ``others``."""
        origin, room = self.known.origin, self.known.room
        ctx.epsilon, ctx.width = None, self.x.shape[-1]
        if origin is not None:
            ctx.epsilon = origin.epsilon
            ctx.save_for_backward(*others, self.thin, origin.source, origin.weight, origin.scales)
        elif room is not None:
            ctx.save_for_backward(*others, room)
        else:
            ctx.save_for_backward(*others, self.thin, self.rows)


class KeptInput:
    """The input of a group in the backward pass, from what ``Input.keep`` saved."""

    def __init__(self, ctx: Any, kept: Tensors) -> None:
        width: int = ctx.width
        self._rows: torch.Tensor | None = None
        self._sides: torch.Tensor | None = None
        self._origin: Origin | None = None
        if ctx.epsilon is not None:
            self.thin, source, weight, scales = kept
            self._origin = Origin(source, weight, ctx.epsilon, scales)
        elif len(kept) == 1:
            (self._sides,) = kept
            self._rows, self.thin = kept[0][:, :width], kept[0][:, width:]
        else:
            self.thin, self._rows = kept

    def sides(self) -> torch.Tensor:
        """x and the thin products side by side."""
        if self._sides is None and self._origin is not None:
            self._sides = self._origin.remake(self.thin.shape[1])
            self._rows, margin = self._sides.tensor_split([self._sides.shape[1] - self.thin.shape[1]], dim=1)
            margin.copy_(self.thin)
        return torch.cat([self.rows(), self.thin], dim=1) if self._sides is None else self._sides

    def rows(self) -> torch.Tensor:
        """x."""
        if self._rows is None:
            self._rows = typing.cast(Origin, self._origin).remake(0)
        return self._rows

    def a_gradients(self, by_thin: torch.Tensor, branches: Branches) -> list[torch.Tensor]:
        """Gradient of each A. That of a norm's output needs no output: rows and columns are scaled on the thin side."""
        origin = self._origin
        if self._rows is not None or origin is None or origin.scales is None or branches.probability:
            return a_gradients(by_thin, self.rows(), branches)
        source = origin.source.reshape(-1, origin.source.shape[-1])
        scaled = torch.mul(by_thin, origin.scales, out=by_thin.new_empty(by_thin.shape))
        return list((scaled.t() @ source).mul_(origin.weight).split_with_sizes(branches.ranks))


def stacked(a: Tensors) -> torch.Tensor:
    """All A as one matrix: [sum of ranks, inputs]."""
    return a[0] if len(a) == 1 else torch.cat(list(a))


def thin_products(x: torch.Tensor, a: Tensors, branches: Branches, out: torch.Tensor | None = None) -> torch.Tensor:
    """drop_i(x) A_i^T side by side: [tokens, sum of ranks]; one product where there is no dropout."""
    result = x.new_empty(x.shape[0], sum(branches.ranks)) if out is None else out
    if not branches.probability:
        return torch.mm(x, stacked(a).t(), out=result)
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
    gradients: Tensors, thin: torch.Tensor, b: Tensors, branches: Branches, out: torch.Tensor | None = None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Gradient of the thin products, and of each B."""
    by_thin = thin.new_empty(thin.shape) if out is None else out
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


def by_input(
    weights: FrozenWeights, sides: torch.Tensor, by_thin: torch.Tensor, a: Tensors, branches: Branches
) -> torch.Tensor:
    """Gradient of a group's input: one product of the outputs' and the thin products' gradients side by side.

    With dropout the branches' share needs its mask, and is added apart.
    """
    if not branches.probability:
        return sides @ weights.above(a)
    result = sides[:, : weights.shape[0]] @ weights.matrix()
    for part, down, seed in zip(by_thin.split_with_sizes(branches.ranks, dim=1), a, branches.seeds, strict=True):
        elementwise.add_dropped(result, part @ down, branches.probability, seed)
    return result


def beside_gradients(
    weights: FrozenWeights, gradients: Tensors, thin: torch.Tensor, b: Tensors, branches: Branches
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Gradients of a group's outputs beside those of its thin products; the latter; and those of each B.

    Where the gradients' maker left room beside them, nothing is copied.
    """
    flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
    width = weights.shape[0]
    room: torch.Tensor | None = weights.scratch.gradients.take(*gradients)
    if room is None or room.shape[1] != width + thin.shape[1]:
        by_thin, by_b = thin_gradients(flat, thin, b, branches)
        return torch.cat([*flat, by_thin], dim=1), by_thin, by_b
    by_thin, by_b = thin_gradients(flat, thin, b, branches, room[:, width:])
    return room, by_thin, by_b


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
        known: Known,
        weights: FrozenWeights,
        branches: Branches,
        *adapter: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """``adapter`` is all A, then all B."""
        count = len(weights.outputs)
        a, b = cast(adapter[:count], x.dtype), cast(adapter[count:], x.dtype)
        source = Input(x, known, a, branches)
        # One product a projection: attention wants each output contiguous, and at these sizes a wide one is no faster
        if known.room is None:
            outputs = [source.rows @ part.t() for part in weights.matrix().split_with_sizes(weights.outputs)]
            add_branches(outputs, source.thin, b, branches)
        else:
            matrix = weights.beside(b, branches.scales)
            outputs = [source.sides() @ part.t() for part in matrix.split_with_sizes(weights.outputs)]
        source.keep(ctx, *adapter)
        ctx.weights, ctx.branches, ctx.shape = weights, branches, x.shape
        return tuple(output.view(*x.shape[:-1], -1) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B."""
        weights, branches = ctx.weights, ctx.branches
        count = len(weights.outputs)
        saved = ctx.saved_tensors  # once: a recomputed layer hands them out once
        adapter, kept = saved[: 2 * count], saved[2 * count :]
        source, dtype = KeptInput(ctx, kept), gradients[0].dtype
        thin = source.thin
        a, b = cast(adapter[:count], dtype), cast(adapter[count:], dtype)
        by_x = None
        if ctx.needs_input_grad[0]:
            sides, by_thin, by_b = beside_gradients(weights, gradients, thin, b, branches)
            by_x = by_input(weights, sides, by_thin, a, branches)
        else:
            weights.scratch.gradients.clear()
            flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
            by_thin, by_b = thin_gradients(flat, thin, b, branches)
        by_a = source.a_gradients(by_thin, branches)
        return (
            None if by_x is None else by_x.view(ctx.shape),
            None,
            None,
            None,
            *like([*by_a, *by_b], adapter),
        )
