"""Safetensors files as byte ranges: a model can be rewritten without ever being in memory.

The format is a length (8 bytes, little-endian), a JSON header of that length and the tensors' raw data
(https://github.com/huggingface/safetensors#format).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steps.errors import ModelError

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: where its bytes are, counted from the start of the file."""

    name: str
    kind: str  # the format's name of the type, such as "BF16"
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Extent of the first dimension, 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    def dtype(self, where: str) -> "torch.dtype":
        """The type in torch's terms.

        Raises:
            ModelError: it is not one that a weight at full precision has.
        """
        import torch

        kinds = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
        if self.kind not in kinds:
            raise ModelError(
                f"{where}: {self.name} is stored as {self.kind}; an adapter merges into {', '.join(kinds)}"
            )
        return kinds[self.kind]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that ``from_pretrained`` reads, in the order of their names.

    Raises:
        ModelError: there are none, or the index names one that is not there.
    """
    if (folder / INDEX).is_file():
        names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(names))]
    else:
        files = [folder / SINGLE]
    for path in files:
        if not path.is_file():
            raise ModelError(f"{path}: the weights are not there; name a folder with all of the model's safetensors")
    return files


def read_header(path: Path) -> tuple[bytes, list[StoredTensor]]:
    """A file's bytes before the data, and its tensors in the order of the data.

    Raises:
        ModelError: the file is not in the format, or is shorter than its header says.
    """
    try:
        with path.open("rb") as stream:
            length = stream.read(8)
            text = stream.read(int.from_bytes(length, "little"))
        values = json.loads(text)
        values.pop("__metadata__", None)
        begin = len(length) + len(text)
        tensors = [
            StoredTensor(name, one["dtype"], tuple(one["shape"]), *(begin + at for at in one["data_offsets"]))
            for name, one in values.items()
        ]
    except (ValueError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path}: not a safetensors file ({type(error).__name__}); fetch the model again") from error
    tensors.sort(key=lambda tensor: tensor.start)
    if tensors and path.stat().st_size != tensors[-1].stop:
        raise ModelError(
            f"{path}: {path.stat().st_size} bytes where its header says {tensors[-1].stop}; fetch it again"
        )
    return length + text, tensors
