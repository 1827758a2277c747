"""What the machine offers: device, precision and attention kernel, each with the reason for the choice."""

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.errors import DeviceError

if TYPE_CHECKING:
    import torch

AMPERE = (8, 0)
"""Compute capability from which NVIDIA GPUs have bfloat16 and flash attention 2."""


@dataclass(frozen=True)
class Device:
    """The device that a step runs on."""

    kind: str  # "cuda" or "cpu"
    name: str
    precision: str  # "bfloat16", "float16" or "float32"
    attention: str  # "flash_attention_2", "sdpa" or "eager"
    reason: str

    @property
    def dtype(self) -> "torch.dtype":
        """The precision as torch's type."""
        import torch

        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[self.precision]

    @property
    def map(self) -> dict[str, str | int]:
        """``device_map`` that puts a whole model onto this device."""
        return {"": 0 if self.kind == "cuda" else "cpu"}


def describe_device(precision: str = "auto", attention: str = "auto") -> Device:
    """Choose device, precision and attention by what is there.

    Args:
        precision: ``auto``, ``bfloat16``, ``float16`` or ``float32``.
        attention: ``auto``, ``flash_attention_2``, ``sdpa`` or ``eager``.

    Raises:
        DeviceError: the named precision or attention is not to be had here.
    """
    import torch

    if torch.cuda.is_available():
        return _cuda(precision, attention)
    return _cpu(precision, attention)


def _cuda(precision: str, attention: str) -> Device:
    import torch

    name = torch.cuda.get_device_name(0)
    ampere = torch.cuda.get_device_capability(0) >= AMPERE
    if precision == "bfloat16" and not ampere:
        raise DeviceError(f"parameters.training.precision: {name} has no bfloat16; use float16 or auto")
    chosen = precision if precision != "auto" else "bfloat16" if ampere else "float16"
    installed = importlib.util.find_spec("flash_attn") is not None
    flash = installed and ampere and chosen != "float32"
    if attention == "flash_attention_2" and not flash:
        why = (
            "flash-attn is not installed (pip install '.[flash]')" if not installed else f"{name} lacks it in {chosen}"
        )
        raise DeviceError(f"parameters.training.attention: flash_attention_2 is not to be had: {why}; use sdpa or auto")
    kernel = attention if attention != "auto" else "flash_attention_2" if flash else "sdpa"
    return Device("cuda", name, chosen, kernel, f"{chosen} on {name}, attention {kernel}")


def _cpu(precision: str, attention: str) -> Device:
    import torch

    if attention == "flash_attention_2":
        raise DeviceError(
            "parameters.training.attention: flash_attention_2 needs an NVIDIA GPU and none is there; use sdpa or auto"
        )
    if precision == "float16":
        raise DeviceError(
            "parameters.training.precision: float16 needs a GPU and none is there; use float32, bfloat16 or auto"
        )
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    chosen = precision if precision != "auto" else "bfloat16" if native else "float32"
    kernel = "sdpa" if attention == "auto" else attention
    because = "the processor has" if native else "the processor lacks"
    return Device(
        "cpu",
        "CPU",
        chosen,
        kernel,
        f"{chosen} on the CPU ({because} bfloat16 instructions), attention {kernel}",
    )
