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
    add_branches,
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


def gate_and_up(rows: torch.Tensor, thin: torch.Tensor, b: Tensors, mlp: Mlp) -> torch.Tensor:
    """Both projections side by side: [tokens, 2 * width], one wide product."""
    result = rows @ mlp.gate_up.matrix().t()
    add_branches(result.split_with_sizes(mlp.gate_up.outputs, dim=1), thin, b, mlp.gate_up_branches)
    return result


class SwigluMlp(torch.autograd.Function):
    """The function above."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, origin: Origin | None, mlp: Mlp, *adapter: torch.Tensor) -> torch.Tensor:
        """``adapter``: A of gate, up and down, then B of gate, up and down."""
        rows = x.reshape(-1, x.shape[-1])
        weights = cast(adapter, x.dtype)
        thin = thin_products(rows, weights[:2], mlp.gate_up_branches)
        both = gate_and_up(rows, thin, weights[3:5], mlp)
        product = elementwise.swiglu(both)
        thin_down = thin_products(product, weights[2:3], mlp.down_branches)
        kept = (x,) if origin is None else (origin.source, origin.weight)
        ctx.save_for_backward(thin, thin_down, None if mlp.remake_gate_up else both, *adapter, *kept)
        ctx.epsilon = None if origin is None else origin.epsilon
        ctx.mlp = mlp
        if mlp.down.scratch.recomputing:
            return torch.empty_like(x)  # the layer's end, which only the first forward pass needs
        output = product @ mlp.down.matrix().t()
        add_branches([output], thin_down, weights[5:], mlp.down_branches)
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
        by_product = flat @ mlp.down.matrix()
        add_input_gradient(by_product, by_thin_down, a[2:], mlp.down_branches)
        if both is None:
            both = gate_and_up(rows, thin, b[:2], mlp)
        by_both, product = elementwise.swiglu_backward(by_product, both)
        del by_product, both
        by_down_a = a_gradients(by_thin_down, product, mlp.down_branches)
        del product
        parts = by_both.split_with_sizes(mlp.gate_up.outputs, dim=1)
        by_thin, by_b = thin_gradients(parts, thin, b[:2], mlp.gate_up_branches)
        by_a = a_gradients(by_thin, rows, mlp.gate_up_branches)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = by_both @ mlp.gate_up.matrix()
            add_input_gradient(by_x, by_thin, a[:2], mlp.gate_up_branches)
        return (
            None if by_x is None else by_x.view(x.shape),
            None,
            None,
            *like([*by_a, *by_down_a, *by_b, *by_down_b], adapter),
        )
