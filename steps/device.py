"""What the machine offers: device, precision and attention kernel, each with the reason for the choice.

NVIDIA cards, by compute capability ("auto" in every case):

    Volta, Turing (V100, T4)                      float16 with loss scaling   sdpa
    Ampere and later (A10, A100, RTX 3080, H100)  bfloat16, tf32              flash_attention_2 if installed, else sdpa

Processors take bfloat16 where they have instructions for it, else float32; their attention is sdpa.
"""

import gc
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from steps.errors import DeviceError

if TYPE_CHECKING:
    import torch

AMPERE = (8, 0)
"""Compute capability from which NVIDIA GPUs have bfloat16, tf32 and flash attention 2."""


@dataclass(frozen=True)
class Hardware:
    """What decides the choice, and nothing else: a table of cards can be tested without the cards."""

    kind: Literal["cuda", "cpu"]
    name: str
    memory_bytes: int
    capability: tuple[int, int] | None = None  # CUDA compute capability; None on a processor
    bfloat16_instructions: bool = False  # processors only: avx512_bf16 or amx
    flash_attention_installed: bool = False

    @property
    def ampere(self) -> bool:
        """Whether this is an NVIDIA GPU of the Ampere generation or a later one."""
        return self.capability is not None and self.capability >= AMPERE


@dataclass(frozen=True)
class Choice:
    """Something that was decided for the device at hand, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Device:
    """The device that a step runs on."""

    kind: Literal["cuda", "cpu"]
    name: str
    precision: str  # "bfloat16", "float16" or "float32"
    attention: str  # "flash_attention_2", "sdpa" or "eager"
    tf32: bool  # whether what stays in float32 is multiplied in tf32
    reason: str
    choices: tuple[Choice, ...] = ()  # the same, one by one

    @property
    def dtype(self) -> "torch.dtype":
        """The precision as torch's type."""
        import torch

        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[self.precision]

    @property
    def map(self) -> dict[str, str | int]:
        """``device_map`` that puts a whole model onto this device."""
        return {"": 0 if self.kind == "cuda" else "cpu"}


def describe_device(
    precision: str = "auto", attention: str = "auto", *, key: str = "parameters.training.precision"
) -> Device:
    """Choose device, precision and attention by what this machine has; arguments as in :func:`choose`."""
    return choose(describe_hardware(), precision, attention, key=key)


def describe_hardware() -> Hardware:
    """The first GPU, else the processor."""
    import torch

    if torch.cuda.is_available():
        return Hardware(
            kind="cuda",
            name=torch.cuda.get_device_name(0),
            memory_bytes=torch.cuda.get_device_properties(0).total_memory,
            capability=torch.cuda.get_device_capability(0),
            flash_attention_installed=importlib.util.find_spec("flash_attn") is not None,
        )
    import psutil

    return Hardware(
        kind="cpu",
        name="CPU",
        memory_bytes=psutil.virtual_memory().total,
        bfloat16_instructions=torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
    )


def give_back_memory() -> None:
    """Let go of the GPU's memory that this process has reserved and no longer uses, if there is a GPU."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def why_no_gpu() -> str:
    """Why PyTorch finds no GPU, as far as one can tell."""
    import torch

    if not Path("/dev/nvidiactl").exists():
        return "no GPU, since no NVIDIA driver is here"
    if torch.version.cuda is None:
        return "no GPU, though an NVIDIA driver is here: this PyTorch is built for CPUs alone; install one with CUDA"
    return (
        f"no GPU, though an NVIDIA driver is here: this PyTorch needs one for CUDA {torch.version.cuda} (nvidia-smi "
        "shows what it is for), and CUDA_VISIBLE_DEVICES must not hide the card"
    )


def choose(
    hardware: Hardware,
    precision: str = "auto",
    attention: str = "auto",
    *,
    key: str = "parameters.training.precision",
) -> Device:
    """Precision and attention for the hardware.

    Args:
        hardware: what is there.
        precision: ``auto``, ``bfloat16``, ``float16`` or ``float32``.
        attention: ``auto``, ``flash_attention_2``, ``sdpa`` or ``eager``.
        key: the parameter that named the precision, for the error.

    Raises:
        DeviceError: the named precision or attention is not to be had there.
    """
    chosen = _precision(hardware, precision, key)
    kernel = _attention(hardware, attention, chosen)
    tf32 = ", tf32 for the rest" if hardware.ampere and chosen != "float32" else ", tf32" if hardware.ampere else ""
    memory = f"{hardware.memory_bytes / 2**30:.0f} GiB"
    reason = f"{chosen}{tf32} on {_described(hardware)}, {memory}; attention {kernel}"
    choices = (
        Choice("device", hardware.name, "the first GPU" if hardware.kind == "cuda" else "PyTorch finds no GPU"),
        Choice("precision", chosen, f"named by {key}" if precision != "auto" else _why_precision(hardware)),
        Choice("attention", kernel, _why_attention(hardware, attention, chosen)),
        Choice("tf32", "on" if hardware.ampere else "off", _why_tf32(hardware)),
    )
    return Device(hardware.kind, hardware.name, chosen, kernel, hardware.ampere, reason, choices)


def _why_precision(hardware: Hardware) -> str:
    if hardware.kind == "cpu":
        return f"the CPU {'has' if hardware.bfloat16_instructions else 'lacks'} bfloat16 instructions"
    return "Ampere and later GPUs have bfloat16" if hardware.ampere else "the GPU is older than Ampere: no bfloat16"


def _why_attention(hardware: Hardware, attention: str, precision: str) -> str:
    if attention != "auto":
        return "named by parameters.training.attention"
    lacks = _flash_attention_lacks(hardware, precision)
    return f"no flash_attention_2: {lacks}" if lacks else "installed, and the GPU and the precision allow it"


def _why_tf32(hardware: Hardware) -> str:
    if hardware.kind == "cpu":
        return "only GPUs have it"
    return "for what stays in float32; Ampere and later GPUs have it" if hardware.ampere else "older than Ampere"


def _precision(hardware: Hardware, precision: str, key: str) -> str:
    if hardware.kind == "cpu":
        if precision == "float16":
            raise DeviceError(f"{key}: float16 needs a GPU and none is there; use float32, bfloat16 or auto")
        best = "bfloat16" if hardware.bfloat16_instructions else "float32"
    else:
        if precision == "bfloat16" and not hardware.ampere:
            raise DeviceError(f"{key}: {_described(hardware)} has no bfloat16; use float16, float32 or auto")
        best = "bfloat16" if hardware.ampere else "float16"
    return best if precision == "auto" else precision


def _attention(hardware: Hardware, attention: str, precision: str) -> str:
    lacks = _flash_attention_lacks(hardware, precision)
    if attention == "flash_attention_2" and lacks:
        raise DeviceError(
            f"parameters.training.attention: flash_attention_2 is not to be had: {lacks}; use sdpa, eager or auto"
        )
    if attention == "auto":
        return "sdpa" if lacks else "flash_attention_2"
    return attention


def _flash_attention_lacks(hardware: Hardware, precision: str) -> str:
    """Why flash attention 2 cannot run, "" where it can."""
    if hardware.kind == "cpu":
        return "it needs an NVIDIA GPU and none is there"
    if not hardware.ampere:
        return f"it needs an Ampere GPU or a later one, and {_described(hardware)} is older"
    if precision == "float32":
        return "it has no float32"
    if not hardware.flash_attention_installed:
        return "flash-attn is not installed (pip install -e '.[flash]')"
    return ""


def _described(hardware: Hardware) -> str:
    if hardware.capability is not None:
        return f"{hardware.name} (compute capability {'.'.join(map(str, hardware.capability))})"
    has = "has" if hardware.bfloat16_instructions else "lacks"
    return f"the CPU (it {has} bfloat16 instructions)"
