"""down(silu(gate(x)) * up(x)) with LoRA on all three, as one autograd function.

Keeps x (or what x is made from) and gate and up side by side; their product, which `down` reads, is made again. With
``remake_gate_up`` gate and up are made again too: one wide product more for 2 x the inner width less a token.
"""

from dataclasses import dataclass
from typing import Any

import torch

from steps.train.kernels import elementwise
from steps.train.kernels.lora_linear import (
    Branches,
    Origin,
    Tensors,
    a_gradients,
    add_input_gradient,
    cast,
    like,
    thin_gradients,
    thin_products,
)
from steps.train.kernels.weights import FrozenWeights


@dataclass(frozen=True)
class Mlp:
    """What autograd does not see of one call."""

    gate_up: FrozenWeights
    down: FrozenWeights
    gate_up_branches: Branches
    down_branches: Branches
    remake_gate_up: bool


def with_branches(weights: FrozenWeights, a: Tensors, b: Tensors, branches: Branches) -> torch.Tensor:
    """The weights with scale_i B_i on their right and A_i below them: one product then does the work of three."""
    result = weights.extended()
    outputs, inputs = weights.shape
    right = result[:outputs, inputs:].split_with_sizes(weights.outputs)
    column = 0
    for rows, up, scale, rank in zip(right, b, branches.scales, branches.ranks, strict=True):
        torch.mul(up, scale, out=rows[:, column : column + rank])  # the rest of the row is 0 since the memory was made
        column += rank
    torch.cat(list(a), out=result[outputs:, :inputs])
    return result


def gate_and_up(rows: torch.Tensor, thin: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Both projections side by side: [tokens, 2 * width], one product of x and its thin products side by side."""
    return torch.cat([rows, thin], dim=1) @ matrix[: -thin.shape[1]].t()


class SwigluMlp(torch.autograd.Function):
    """The function above."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, origin: Origin | None, mlp: Mlp, *adapter: torch.Tensor) -> torch.Tensor:
        """``adapter``: A of gate, up and down, then B of gate, up and down."""
        rows = x.reshape(-1, x.shape[-1])
        weights = cast(adapter, x.dtype)
        a, b = weights[:3], weights[3:]
        thin = thin_products(rows, a[:2], mlp.gate_up_branches)
        both = gate_and_up(rows, thin, with_branches(mlp.gate_up, a[:2], b[:2], mlp.gate_up_branches))
        width, rank = mlp.down.shape[1], mlp.down_branches.ranks[0]
        product = elementwise.swiglu(both, margin=rank)
        thin_down = thin_products(product[:, :width], a[2:], mlp.down_branches)
        kept = (x,) if origin is None else (origin.source, origin.weight)
        ctx.save_for_backward(thin, thin_down, None if mlp.remake_gate_up else both, *adapter, *kept)
        ctx.epsilon = None if origin is None else origin.epsilon
        ctx.mlp = mlp
        if mlp.down.scratch.recomputing:
            return torch.empty_like(x)  # the layer's end, which only the first forward pass needs
        product[:, width:] = thin_down
        output = product @ with_branches(mlp.down, a[2:], b[2:], mlp.down_branches)[:-rank].t()
        return output.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B."""
        mlp: Mlp = ctx.mlp
        thin, thin_down, both, *rest = ctx.saved_tensors
        adapter, kept = rest[:6], rest[6:]
        x = kept[0] if ctx.epsilon is None else Origin(kept[0], kept[1], ctx.epsilon).remake()
        rows, flat = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        weights = cast(adapter, x.dtype)
        a, b = weights[:3], weights[3:]

        by_thin_down, by_down_b = thin_gradients([flat], thin_down, b[2:], mlp.down_branches)
        matrix = with_branches(mlp.down, a[2:], b[2:], mlp.down_branches)
        sides = torch.cat([flat, by_thin_down], dim=1)
        by_product = by_input(sides, by_thin_down, matrix[:, : mlp.down.shape[1]], a[2:], mlp.down_branches)
        del sides
        matrix = with_branches(mlp.gate_up, a[:2], b[:2], mlp.gate_up_branches)
        if both is None:
            both = gate_and_up(rows, thin, matrix)
        by_both, product = elementwise.swiglu_backward(by_product, both, margin=thin.shape[1])
        del by_product, both
        by_down_a = a_gradients(by_thin_down, product, mlp.down_branches)
        del product

        *parts, margin = by_both.split_with_sizes([*mlp.gate_up.outputs, thin.shape[1]], dim=1)
        by_thin, by_b = thin_gradients(parts, thin, b[:2], mlp.gate_up_branches)
        by_a = a_gradients(by_thin, rows, mlp.gate_up_branches)
        by_x = None
        if ctx.needs_input_grad[0]:
            margin.copy_(by_thin)
            by_x = by_input(by_both, by_thin, matrix[:, : rows.shape[1]], a[:2], mlp.gate_up_branches)
        return (
            None if by_x is None else by_x.view(x.shape),
            None,
            None,
            *like([*by_a, *by_down_a, *by_b, *by_down_b], adapter),
        )


def by_input(
    sides: torch.Tensor, by_thin: torch.Tensor, matrix: torch.Tensor, a: Tensors, branches: Branches
) -> torch.Tensor:
    """Gradient of a group's input: one product of the outputs' and the thin products' gradients side by side.

    With dropout the branches' share needs its mask, and is added apart.
    """
    if not branches.probability:
        return sides @ matrix
    outputs = sides.shape[1] - by_thin.shape[1]
    result = sides[:, :outputs] @ matrix[:outputs]
    add_input_gradient(result, by_thin, a, branches)
    return result
