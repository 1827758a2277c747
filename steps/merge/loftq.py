"""What a LoftQ adapter belongs to: the quantised weights, not the full-precision ones."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from steps.quantize.params import QuantizationParameters
from steps.train.params import TrainingParameters

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


def start_like_training(tuned: "PeftModel", adapter: Mapping[str, Mapping[str, object]]) -> None:
    """Round the targeted weights to what they were in training if the adapter began as their rounding error.

    Any other adapter is an update that also fits the full-precision weights. One of LoftQ holds the difference
    between the two, which would be added twice.

    Args:
        tuned: full-precision base with the adapter.
        adapter: the adapter's provenance; says how it was initialised and how the base was quantised.
    """
    if TrainingParameters.model_validate(adapter["training"]).lora.initialization != "loftq":
        return
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from peft.tuners.lora import LoraLayer

    quantization = QuantizationParameters.model_validate(adapter["quantization"])
    with torch.no_grad():
        for layer in tuned.modules():
            if isinstance(layer, LoraLayer):
                weight = cast("torch.Tensor", layer.get_base_layer().weight)
                packed, state = quantize_4bit(
                    weight.data,
                    compress_statistics=quantization.nested,
                    quant_type=quantization.kind,
                )
                weight.copy_(dequantize_4bit(packed, state))
