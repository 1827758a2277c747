"""The choice of precision and attention, card by card, without the cards."""

import pytest
import torch

from steps.device import Hardware, choose, describe_device, describe_hardware
from steps.errors import DeviceError

GIB = 2**30

GPUS = {
    "V100": (7, 0),
    "T4": (7, 5),
    "A100": (8, 0),
    "RTX 3080": (8, 6),
    "RTX 3090": (8, 6),
    "A10": (8, 6),
    "RTX 4090": (8, 9),
    "H100": (9, 0),
    "B200": (10, 0),
}
"""Compute capabilities as NVIDIA states them: developer.nvidia.com/cuda-gpus."""

OLD = {"V100", "T4"}


def gpu(name: str, *, flash: bool = False) -> Hardware:
    """A card of the table."""
    return Hardware("cuda", name, 16 * GIB, capability=GPUS[name], flash_attention_installed=flash)


def cpu(*, bfloat16: bool) -> Hardware:
    """A processor with or without bfloat16 instructions."""
    return Hardware("cpu", "CPU", 16 * GIB, bfloat16_instructions=bfloat16)


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("name", GPUS)
def test_every_card_gets_its_precision_and_attention(name: str, flash: bool) -> None:
    device = choose(gpu(name, flash=flash))
    old = name in OLD
    assert (device.kind, device.name) == ("cuda", name)
    assert device.precision == ("float16" if old else "bfloat16")
    assert device.tf32 is not old
    assert device.attention == ("flash_attention_2" if flash and not old else "sdpa")
    assert name in device.reason
    assert "16 GiB" in device.reason
    assert ("tf32" in device.reason) is not old


@pytest.mark.parametrize(
    ("hardware", "named", "reasons"),
    [
        (
            gpu("T4"),
            {},
            {
                "device": ("T4", "the first GPU"),
                "precision": ("float16", "the GPU is older than Ampere: no bfloat16"),
                "attention": ("sdpa", "it needs an Ampere GPU or a later one"),
                "tf32": ("off", "older than Ampere"),
            },
        ),
        (
            gpu("H100", flash=True),
            {},
            {
                "precision": ("bfloat16", "Ampere and later GPUs have bfloat16"),
                "attention": ("flash_attention_2", "installed, and the GPU and the precision allow it"),
                "tf32": ("on", "for what stays in float32"),
            },
        ),
        (
            gpu("H100", flash=True),
            {"precision": "float32", "attention": "eager"},
            {
                "precision": ("float32", "named by parameters.training.precision"),
                "attention": ("eager", "named by parameters.training.attention"),
            },
        ),
        (
            cpu(bfloat16=False),
            {},
            {
                "device": ("CPU", "PyTorch finds no GPU"),
                "precision": ("float32", "the CPU lacks bfloat16 instructions"),
                "attention": ("sdpa", "none is there"),
                "tf32": ("off", "only GPUs have it"),
            },
        ),
    ],
)
def test_every_choice_has_its_value_and_reason(
    hardware: Hardware, named: dict[str, str], reasons: dict[str, tuple[str, str]]
) -> None:
    choices = {one.name: one for one in choose(hardware, **named).choices}
    assert choices.keys() == {"device", "precision", "attention", "tf32"}
    for name, (value, reason) in reasons.items():
        assert choices[name].value == value
        assert reason in choices[name].reason


@pytest.mark.parametrize(("bfloat16", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_processors_take_bfloat16_where_they_have_it(bfloat16: bool, precision: str) -> None:
    device = choose(cpu(bfloat16=bfloat16))
    assert (device.kind, device.precision, device.attention, device.tf32) == ("cpu", precision, "sdpa", False)
    assert device.map == {"": "cpu"}


@pytest.mark.parametrize(
    ("hardware", "precision"),
    [
        (gpu("V100"), "float32"),
        (gpu("A100", flash=True), "float16"),
        (gpu("A100", flash=True), "float32"),
        (cpu(bfloat16=True), "float32"),
        (cpu(bfloat16=False), "bfloat16"),  # computed by conversion: slow, and right
    ],
)
def test_a_precision_that_is_there_can_be_named(hardware: Hardware, precision: str) -> None:
    device = choose(hardware, precision)
    assert device.precision == precision
    assert str(device.dtype) == f"torch.{precision}"
    flash = hardware.flash_attention_installed and precision != "float32"
    assert device.attention == ("flash_attention_2" if flash else "sdpa")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_attention_can_be_named(attention: str) -> None:
    assert choose(gpu("H100", flash=True), attention=attention).attention == attention
    assert choose(cpu(bfloat16=True), attention=attention).attention == attention


@pytest.mark.parametrize(
    ("hardware", "precision", "attention", "message"),
    [
        (
            gpu("T4"),
            "bfloat16",
            "auto",
            r"precision: T4 \(compute capability 7\.5\) has no bfloat16; use float16, float32 or auto",
        ),
        (cpu(bfloat16=True), "float16", "auto", r"precision: float16 needs a GPU .*; use float32, bfloat16 or auto"),
        (
            gpu("V100", flash=True),
            "auto",
            "flash_attention_2",
            r"attention: flash_attention_2 .* needs an Ampere GPU .* V100 .* is older; use sdpa, eager or auto",
        ),
        (gpu("A100"), "auto", "flash_attention_2", r"attention: .* flash-attn is not installed \(pip install"),
        (gpu("A100", flash=True), "float32", "flash_attention_2", r"attention: .* it has no float32; use sdpa"),
        (cpu(bfloat16=True), "auto", "flash_attention_2", r"attention: .* needs an NVIDIA GPU and none is there"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_is(
    hardware: Hardware, precision: str, attention: str, message: str
) -> None:
    with pytest.raises(DeviceError, match=rf"^parameters\.training\.{message}"):
        choose(hardware, precision, attention)


def test_the_error_names_the_key_that_was_set() -> None:
    with pytest.raises(DeviceError, match=r"^parameters\.quantization\.compute_dtype: T4"):
        choose(gpu("T4"), "bfloat16", key="parameters.quantization.compute_dtype")


def test_this_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # what a machine without a GPU answers
    hardware = describe_hardware()
    assert (hardware.kind, hardware.capability, hardware.flash_attention_installed) == ("cpu", None, False)
    assert hardware.memory_bytes > GIB
    assert describe_device() == choose(hardware)
