"""The forward passes that replace those of PEFT's and transformers' modules."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from steps.train.kernels.lora_linear import NOTHING, Branches, Known, Origin, Projections
from steps.train.kernels.mlp import Mlp, SwigluMlp
from steps.train.kernels.norm import FrozenRmsNorm, Normed
from steps.train.kernels.seeds import Seeds
from steps.train.kernels.weights import FrozenWeights, Scratch


class SharedInput:
    """LoRA layers that read the same input: the first call computes all, the others take their result.

    The modules around them stay as they are. A call with another input computes for itself, so the result is right
    whatever the caller does.
    """

    def __init__(self, layers: Sequence[Any], scratch: Scratch, kind: str, hold: bool) -> None:
        self.layers = layers
        self.scratch = scratch
        # Layers share memory only where their ranks are the same: the zeros between the B stay where they are
        self.margin = sum(ranks(layers))
        self.weights = frozen_weights(layers, scratch, f"{kind} {ranks(layers)}", hold)
        self._pending: dict[int, torch.Tensor] = {}
        self._input: tuple[torch.Tensor, int] | None = None

    def install(self) -> None:
        """Replace the layers' forward."""
        for index, layer in enumerate(self.layers):
            layer.forward = self._forward(index, layer, layer.forward)

    def _forward(self, index: int, layer: Any, plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if args or kwargs or any(each.disable_adapters or each.merged for each in self.layers):
                return plain(x, *args, **kwargs)
            return self._take(index, x)

        return forward

    def _take(self, index: int, x: torch.Tensor) -> torch.Tensor:
        known = self._input is not None and self._input[0] is x and self._input[1] == x._version
        if not known or index not in self._pending:
            self._pending = dict(enumerate(self._compute(x)))
            self._input = (x, x._version)
        result = self._pending.pop(index)
        if not self._pending:
            self._input = None
        return result

    def _compute(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inner = x.to(self.weights.dtype)
        known = self.scratch.inputs.take(inner) or NOTHING
        outputs: tuple[torch.Tensor, ...] = Projections.apply(  # type: ignore[no-untyped-call]  # torch has no types there
            inner, known, self.weights, branches(self.layers, self.scratch.seeds), *adapter_weights(self.layers)
        )
        return tuple(output.to(x.dtype) for output in outputs)


def install_mlp(
    module: torch.nn.Module, layers: Sequence[Any], scratch: Scratch, *, remake_gate_up: bool, hold: bool
) -> None:
    """Replace the forward of a SwiGLU MLP with the LoRA layers gate, up and down."""
    plain = module.forward
    gate_up = frozen_weights(layers[:2], scratch, f"gate_up {ranks(layers[:2])}", hold)
    down = frozen_weights(layers[2:], scratch, f"down {ranks(layers[2:])}", hold)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if any(layer.disable_adapters or layer.merged for layer in layers):
            result: torch.Tensor = plain(x)
            return result
        inner = x.to(gate_up.dtype)
        first, last = branches(layers[:2], scratch.seeds), branches(layers[2:], scratch.seeds)
        call = Mlp(gate_up, down, first, last, remake_gate_up)
        output: torch.Tensor = SwigluMlp.apply(  # type: ignore[no-untyped-call]  # torch has no types there
            inner, scratch.inputs.take(inner) or NOTHING, call, *adapter_weights(layers)
        )
        return output.to(x.dtype)

    module.forward = forward


def frozen_weights(layers: Sequence[Any], scratch: Scratch, kind: str, hold: bool) -> FrozenWeights:
    """The base weights of LoRA layers, with room for their adapters."""
    base = [layer.base_layer for layer in layers]
    return FrozenWeights(base, base[0].compute_dtype, scratch, kind, held=hold, margin=sum(ranks(layers)))


def ranks(layers: Sequence[Any]) -> list[int]:
    """Of the active adapters."""
    return [layer.r[layer.active_adapters[0]] for layer in layers]


def adapter_weights(layers: Sequence[Any]) -> list[torch.Tensor]:
    """All A, then all B, of the active adapters."""
    downs = [layer.lora_A[layer.active_adapters[0]].weight for layer in layers]
    return downs + [layer.lora_B[layer.active_adapters[0]].weight for layer in layers]


def branches(layers: Sequence[Any], source: Seeds) -> Branches:
    """Scales, ranks and dropout of this call."""
    names = [layer.active_adapters[0] for layer in layers]
    dropout = layers[0].lora_dropout[names[0]]
    probability = dropout.p if isinstance(dropout, torch.nn.Dropout) and dropout.training else 0.0
    seeds = source.draw(len(layers)) if probability else (0,) * len(layers)
    return Branches(
        tuple(layer.scaling[name] for layer, name in zip(layers, names, strict=True)),
        tuple(ranks(layers)),
        probability,
        seeds,
    )


def install_norm(module: torch.nn.Module, scratch: Scratch, *, remake: bool) -> None:
    """Replace the forward of a norm; with ``remake``, who reads its output may make it again instead of keeping it."""
    plain = module.forward
    weight, epsilon = cast(torch.Tensor, module.weight), cast(float, module.variance_epsilon)

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor
        handed: Normed | None = scratch.normed.take(x)
        if handed is not None and handed.module is module:
            return handed.output
        if x.dtype != weight.dtype:  # the result's type is then the wider one's
            result = plain(x)
            return result
        result = FrozenRmsNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]  # torch has no types there
        if remake and torch.is_grad_enabled():
            scratch.inputs.give(Known(Origin(x, weight, epsilon)), result)
        return result

    module.forward = forward
