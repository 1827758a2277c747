"""The frozen 4-bit weights as matrices: dequantised into shared scratch memory, or once and held."""

from collections.abc import Sequence
from typing import Any

import torch

from steps.train.kernels import elementwise
from steps.train.kernels.seeds import Seeds


class Scratch:
    """Memory that all layers of a model dequantise into, one buffer a kind of projection.

    A buffer remembers whose weights it holds. With checkpointing a layer is recomputed just before its backward
    pass, which then finds its weights there and does not dequantise them again.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}
        self._holds: dict[str, object] = {}
        self.recomputing = False  # set while a checkpointed layer is recomputed in the backward pass
        self._made: tuple[torch.Tensor, Any] | None = None
        self.seeds = Seeds()

    def forget(self) -> None:
        """Take nothing for granted of what the buffers hold: a replayed step writes into them unseen."""
        self._holds = dict.fromkeys(self._holds)

    def remember(self, made: torch.Tensor, origin: Any) -> None:
        """Say what a tensor was made from, to whoever reads it first."""
        self._made = (made, origin)

    def origin_of(self, tensor: torch.Tensor) -> Any:
        """What the tensor was made from, or None; forgets it."""
        known, self._made = self._made, None
        return known[1] if known is not None and known[0] is tensor else None

    def buffer(self, kind: str, owner: "FrozenWeights") -> tuple[torch.Tensor, bool]:
        """Memory for ``owner``'s weights, and whether they are in it already."""
        buffer = self._buffers.get(kind)
        if buffer is None or buffer.dtype != owner.dtype or buffer.shape != owner.extended_shape:
            buffer = torch.zeros(owner.extended_shape, dtype=owner.dtype, device=owner.device)
            self._buffers[kind], self._holds[kind] = buffer, None
        return buffer, self._holds[kind] is owner

    def filled(self, kind: str, owner: "FrozenWeights") -> None:
        """Note whose weights the memory holds now."""
        self._holds[kind] = owner


class FrozenWeights:
    """The weights of 4-bit layers that read the same input, stacked: [sum of their outputs, inputs].

    With a margin they lie in a larger matrix, in which the LoRA weights find place beside and below them:

        W | B
        --+--
        A | 0
    """

    def __init__(
        self, layers: Sequence[Any], dtype: torch.dtype, scratch: Scratch, kind: str, *, held: bool, margin: int = 0
    ) -> None:
        self.layers = layers
        self.dtype = dtype
        self.scratch = scratch
        self.kind = kind
        self.device = layers[0].weight.device
        self.outputs = [layer.out_features for layer in layers]
        self.shape = (sum(self.outputs), layers[0].in_features)
        self.extended_shape = torch.Size((self.shape[0] + margin, self.shape[1] + margin))
        self._held: torch.Tensor | None = None
        if held:
            self._held = torch.zeros(self.extended_shape, dtype=dtype, device=self.device)
            self._fill(self._held)

    def extended(self) -> torch.Tensor:
        """The weights with their margin; valid until another group of the same kind asks for its own."""
        if self._held is not None:
            return self._held
        buffer, there = self.scratch.buffer(self.kind, self)
        if not there:
            self._fill(buffer)
            self.scratch.filled(self.kind, self)
        return buffer

    def matrix(self) -> torch.Tensor:
        """The weights alone."""
        return self.extended()[: self.shape[0], : self.shape[1]]

    def _fill(self, out: torch.Tensor) -> None:
        weights = out[: self.shape[0], : self.shape[1]]
        for layer, rows in zip(self.layers, weights.split_with_sizes(self.outputs), strict=True):
            elementwise.dequantise(layer.weight, rows)
