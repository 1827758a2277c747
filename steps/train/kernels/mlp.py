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
    Input,
    KeptInput,
    Known,
    a_gradients,
    beside_gradients,
    by_input,
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


class SwigluMlp(torch.autograd.Function):
    """The function above."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, known: Known, mlp: Mlp, *adapter: torch.Tensor) -> torch.Tensor:
        """``adapter``: A of gate, up and down, then B of gate, up and down."""
        weights = cast(adapter, x.dtype)
        a, b = weights[:3], weights[3:]
        source = Input(x, known, a[:2], mlp.gate_up_branches)
        both = source.sides() @ mlp.gate_up.beside(b[:2], mlp.gate_up_branches.scales).t()
        width, rank = mlp.down.shape[1], mlp.down_branches.ranks[0]
        product = elementwise.swiglu(both, margin=rank)
        thin_down = thin_products(product[:, :width], a[2:], mlp.down_branches)
        source.keep(ctx, thin_down, None if mlp.remake_gate_up else both, *adapter)
        ctx.mlp, ctx.shape = mlp, x.shape
        if mlp.down.scratch.recomputing:
            return x.new_empty(x.shape)  # the layer's end, which only the first forward pass needs
        product[:, width:] = thin_down
        output = product @ mlp.down.beside(b[2:], mlp.down_branches.scales).t()
        return output.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B."""
        mlp: Mlp = ctx.mlp
        thin_down, both, *rest = ctx.saved_tensors
        adapter, kept = rest[:6], rest[6:]
        weights = cast(adapter, gradient.dtype)
        a, b = weights[:3], weights[3:]

        sides, by_thin_down, by_down_b = beside_gradients(mlp.down, [gradient], thin_down, b[2:], mlp.down_branches)
        by_product = by_input(mlp.down, sides, by_thin_down, a[2:], mlp.down_branches)
        del sides
        source = KeptInput(ctx, kept)
        thin = source.thin
        if both is None:
            both = source.sides() @ mlp.gate_up.beside(b[:2], mlp.gate_up_branches.scales).t()
        by_both, product = elementwise.swiglu_backward(by_product, both, margin=thin.shape[1])
        del by_product, both
        by_down_a = a_gradients(by_thin_down, product, mlp.down_branches)
        del product

        *parts, margin = by_both.split_with_sizes([*mlp.gate_up.outputs, thin.shape[1]], dim=1)
        by_thin, by_b = thin_gradients(parts, thin, b[:2], mlp.gate_up_branches, margin)
        by_a = source.a_gradients(by_thin, mlp.gate_up_branches)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = by_input(mlp.gate_up, by_both, by_thin, a[:2], mlp.gate_up_branches).view(ctx.shape)
        return by_x, None, None, *like([*by_a, *by_down_a, *by_b, *by_down_b], adapter)
