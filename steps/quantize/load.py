"""Loading the stored base model, ready to train on or to evaluate."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from steps.device import Device
from steps.provenance import read_provenance

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_quantized(folder: Path, device: Device, *, in_memory: bool = False) -> "PreTrainedModel":
    """The stored model on the device, its arithmetic in the device's precision; nothing is quantised again.

    ``in_memory`` leaves it in the processor's memory, for a device that has no room for all of it.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map={"": "cpu"} if in_memory else device.map,
        dtype=device.dtype,
        attn_implementation=device.attention,
        use_safetensors=True,
        trust_remote_code=read_provenance(folder)["base_model"]["trust_remote_code"],
    )
    for parameter in model.parameters():
        if parameter.is_floating_point():  # of a quantised model from_pretrained leaves them as they are stored
            parameter.data = parameter.data.to(device.dtype)
    keep_trainable(model, device)
    # LLM.int8() computes in float16 and warns of it in every layer of every forward pass
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return model


def keep_trainable(model: "PreTrainedModel", device: Device) -> None:
    """Set the arithmetic's type, and keep bitsandbytes from repacking weights on the CPU.

    On processors with avx512_bf16 a forward pass without gradients repacks a 4-bit layer for good, and gradients
    and merges are wrong from then on (bitsandbytes 0.50).
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype = device.dtype
            module.compute_type_is_set = True
