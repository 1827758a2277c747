"""The weights that a quantised model multiplies by, read from its files one tensor at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from steps.errors import ModelError
from steps.merge.layout import Layout, layout_of
from steps.merge.tensors import StoredTensor, read_header, weight_files

if TYPE_CHECKING:
    import torch

FOUR_BITS = ".absmax"  # beside a weight of bitsandbytes: its blocks' scales
EIGHT_BITS = "SCB"  # in place of "weight": the rows' scales of LLM.int8()
ROWS = 1024
"""Rows of an int8 weight that are dequantised at once: the float32 values of all would be four times its size."""


@dataclass(frozen=True)
class Source:
    """A quantised weight: its name in the quantised model, and whether the base has it inputs x outputs."""

    name: str
    transposed: bool


@dataclass(frozen=True)
class Dequantized:
    """Quantised weights by the names that the base's tensors have; empty where nothing is quantised."""

    files: Mapping[str, Path] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)

    def __contains__(self, tensor: str) -> bool:
        """Whether the base's tensor of that name is quantised."""
        return tensor in self.sources

    def __len__(self) -> int:
        """Number of quantised weights."""
        return len(self.sources)

    def weight(self, tensor: StoredTensor, device: str) -> "torch.Tensor":
        """The quantised weight in the shape of the base's tensor, rounded to its type.

        Raises:
            ModelError: it has another shape; the two models do not belong together.
        """
        source, dtype = self.sources[tensor.name], tensor.dtype(tensor.name)
        eight = _scales(source.name) in self.files
        weight = self._int8(source.name, dtype, device) if eight else self._four_bits(source.name, dtype, device)
        weight = weight.T.contiguous() if source.transposed else weight
        if tuple(weight.shape) != tensor.shape:
            raise ModelError(
                f"{self.files[source.name]}: {source.name} is {tuple(weight.shape)} and the base model's "
                f"{tensor.shape}; they do not belong together"
            )
        return weight

    def _four_bits(self, name: str, dtype: "torch.dtype", device: str) -> "torch.Tensor":
        """In the type that training dequantises to; where that is float32, in the wanted one, to save memory."""
        import torch
        from bitsandbytes.functional import QuantState, dequantize_4bit

        parts = {key.removeprefix(f"{name}."): self._read(key) for key in self.files if key.startswith(f"{name}.")}
        state = QuantState.from_dict(parts, torch.device(device))
        if state.dtype == torch.float32:
            state.dtype = dtype
        return dequantize_4bit(self._read(name).to(device), state).to(dtype)

    def _int8(self, name: str, dtype: "torch.dtype", device: str) -> "torch.Tensor":
        import torch
        from bitsandbytes.functional import int8_vectorwise_dequant

        packed, scales = self._read(name).to(device), self._read(_scales(name)).to(device)
        weight = torch.empty(packed.shape, dtype=dtype, device=device)
        for start in range(0, len(packed), ROWS):
            rows = slice(start, start + ROWS)
            weight[rows] = int8_vectorwise_dequant(packed[rows], scales[rows])
        return weight

    def _read(self, key: str) -> "torch.Tensor":
        from safetensors import safe_open

        with safe_open(self.files[key], framework="pt") as tensors:
            weight: torch.Tensor = tensors.get_tensor(key)
            return weight


def dequantized_of(quantized: Path, layout: Layout, *, trust_remote_code: bool) -> Dequantized:
    """The quantised weights of a model that :mod:`steps.quantize` stored.

    Args:
        quantized: its folder.
        layout: the base model's.
        trust_remote_code: whether the model brings code of its own.

    Raises:
        ModelError: one of them is not one tensor of the base model.
    """
    files = {tensor.name: path for path in weight_files(quantized) for tensor in read_header(path)[1]}
    weights = [name for name in files if f"{name}{FOUR_BITS}" in files or _scales(name) in files]
    parameters = layout_of(quantized, weights, trust_remote_code=trust_remote_code).tensors
    strange = sorted(parameters.keys() - layout.tensors.keys()) or sorted(set(weights) - set(parameters.values()))
    if strange:
        raise ModelError(
            f"{quantized}: {strange[0]} is quantised and is not one tensor of the base model ({layout.architecture}); "
            "set parameters.merging.target: full_precision"
        )
    sources = {
        layout.tensors[parameter]: Source(name, parameter.removesuffix(".weight") in layout.transposed)
        for parameter, name in parameters.items()
    }
    return Dequantized(files, sources)


def _scales(weight: str) -> str:
    """Name of the scales of an int8 weight; for any other tensor a name that does not occur."""
    return f"{weight.removesuffix('weight')}{EIGHT_BITS}" if weight.endswith(".weight") else ""
