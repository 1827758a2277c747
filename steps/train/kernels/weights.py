"""The frozen 4-bit weights as matrices: dequantised into shared scratch memory, or once and held."""

from collections.abc import Sequence
from typing import Any

import torch

from steps.train.kernels import elementwise
from steps.train.kernels.memory import aligned_rows
from steps.train.kernels.seeds import Seeds


class Slot:
    """What their maker knows of one or more tensors, for whoever reads them next."""

    def __init__(self) -> None:
        self._known: Any = None
        self._given: list[tuple[torch.Tensor, int]] = []

    def give(self, known: Any, *tensors: torch.Tensor) -> None:
        """Say what is known of tensors."""
        self._known, self._given = known, [(tensor, tensor._version) for tensor in tensors]

    def take(self, *tensors: torch.Tensor) -> Any:
        """What is known of these very tensors, if they are as they were; else None. Either way it is forgotten."""
        known, given = self._known, self._given
        self.clear()
        same = len(given) == len(tensors) and all(
            one is other and version == other._version for (one, version), other in zip(given, tensors, strict=True)
        )
        return known if same else None

    def clear(self) -> None:
        """Forget it."""
        self._known, self._given = None, []


class Scratch:
    """Memory that all layers of a model dequantise into, one buffer a kind of projection.

    A buffer remembers whose weights it holds. With checkpointing a layer is recomputed just before its backward
    pass, which then finds its weights there and does not dequantise them again.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}
        self._holds: dict[str, object] = {}
        self.recomputing = False  # set while a checkpointed layer is recomputed in the backward pass
        self.inputs = Slot()  # of a norm's output or an attention's result: ``lora_linear.Known``
        self.gradients = Slot()  # of gradients: the memory whose first columns they are
        self.normed = Slot()  # of a sum: ``norm.Normed``
        self.seeds = Seeds()

    def forget(self) -> None:
        """Take nothing for granted of what the buffers hold: a replayed step writes into them unseen."""
        self._holds = dict.fromkeys(self._holds)
        for slot in (self.inputs, self.gradients, self.normed):
            slot.clear()

    def buffer(self, kind: str, owner: "FrozenWeights") -> tuple[torch.Tensor, bool]:
        """Memory for ``owner``'s weights, and whether they are in it already."""
        buffer = self._buffers.get(kind)
        if buffer is None or buffer.dtype != owner.dtype or buffer.shape != owner.extended_shape:
            buffer = owner.memory()
            self._buffers[kind], self._holds[kind] = buffer, None
        return buffer, self._holds[kind] is owner

    def filled(self, kind: str, owner: "FrozenWeights") -> None:
        """Note whose weights the memory holds now."""
        self._holds[kind] = owner


class FrozenWeights:
    """The weights of 4-bit layers that read the same input, stacked: [sum of their outputs, inputs].

    With a margin, the sum of their ranks, they lie in a larger matrix, in which the LoRA weights find place beside
    and below them:

        W | B
        --+--
        A | 0
    """

    def __init__(
        self, layers: Sequence[Any], dtype: torch.dtype, scratch: Scratch, kind: str, *, held: bool, margin: int
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
            self._held = self.memory()
            self._fill(self._held)

    def memory(self) -> torch.Tensor:
        """Zeros for the weights and their margin."""
        height, width = self.extended_shape
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return aligned_rows(height, width, like).zero_()

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

    def beside(self, b: Sequence[torch.Tensor], scales: Sequence[float]) -> torch.Tensor:
        """[W | B], scale_i B_i on the right: one product for an input beside its thin products does the work of two."""
        result = self.extended()
        column = self.shape[1]
        for rows, up, scale in zip(result[: self.shape[0]].split_with_sizes(self.outputs), b, scales, strict=True):
            rank = up.shape[1]
            torch.mul(up, scale, out=rows[:, column : column + rank])  # the rest of the row is 0 since it was made
            column += rank
        return result[: self.shape[0]]

    def above(self, a: Sequence[torch.Tensor]) -> torch.Tensor:
        """W above A: for a gradient of the outputs beside that of the thin products."""
        result = self.extended()[:, : self.shape[1]]
        torch.cat(list(a), out=result[self.shape[0] :])
        return result

    def _fill(self, out: torch.Tensor) -> None:
        weights = out[: self.shape[0], : self.shape[1]]
        for layer, rows in zip(self.layers, weights.split_with_sizes(self.outputs), strict=True):
            elementwise.dequantise(layer.weight, rows)
