"""What a LoftQ adapter belongs to: the quantised weights, not the full-precision ones."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from steps.quantize.params import QuantizationParameters
from steps.train.params import TrainingParameters

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


def rounding_of(adapter: Mapping[str, Mapping[str, object]]) -> QuantizationParameters | None:
    """How the targeted weights were rounded in training, if the adapter began as their rounding error.

    Any other adapter is an update that also fits the full-precision weights. One of LoftQ holds the difference
    between the two, which would be added twice.

    Args:
        adapter: the adapter's provenance; says how it was initialised and how the base was quantised.
    """
    if TrainingParameters.model_validate(adapter["training"]).lora.initialization != "loftq":
        return None
    return QuantizationParameters.model_validate(adapter["quantization"])


def rounded(weight: "torch.Tensor", quantization: QuantizationParameters) -> "torch.Tensor":
    """The weight in 4 bits and back."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight, compress_statistics=quantization.nested, quant_type=quantization.kind)
    return dequantize_4bit(packed, state)


def start_like_training(tuned: "PeftModel", quantization: QuantizationParameters) -> None:
    """Round the targeted weights of a full-precision base with its adapter to what they were in training."""
    import torch
    from peft.tuners.lora import LoraLayer

    with torch.no_grad():
        for layer in tuned.modules():
            if isinstance(layer, LoraLayer):
                weight = cast("torch.Tensor", layer.get_base_layer().weight)
                weight.copy_(rounded(weight.data, quantization))
