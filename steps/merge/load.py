"""Loading full-precision models: the base, the merged one, and the base with its adapter."""

from pathlib import Path
from typing import TYPE_CHECKING

from steps.device import Device
from steps.merge.loftq import start_like_training
from steps.quantize.params import QuantizationParameters

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_model(folder: Path, device: Device, *, trust_remote_code: bool) -> "PreTrainedModel":
    """The model as it is stored."""
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        device_map=device.map,
        attn_implementation=device.attention,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )
    return model


def put_adapter(base: "PreTrainedModel", adapter_folder: Path, rounding: QuantizationParameters | None) -> "PeftModel":
    """The base with its adapter, not merged; ``rounding`` is what ``rounding_of`` says of the adapter."""
    from peft import PeftModel

    tuned = PeftModel.from_pretrained(base, str(adapter_folder))
    if rounding is not None:
        start_like_training(tuned, rounding)
    return tuned
