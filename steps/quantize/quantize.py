"""Quantising the base model once."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.errors import ModelError
from steps.files import require_space
from steps.provenance import write_provenance
from steps.quantize.device import describe_device
from steps.quantize.params import QuantizationParameters
from steps.quantize.report import QuantizationReport
from steps.resolve.base_model import local_model
from steps.resolve.locks import ModelLock

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED_LAYERS = 3
"""Layers whose weight error is measured: first, middle, last."""


def quantize_model(lock: ModelLock, quantization: QuantizationParameters, output: Path) -> QuantizationReport:
    """Write the locked model into ``output`` with its linear layers in 4 bits (safetensors).

    ``from_pretrained(output)`` loads it without quantising again.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    start = time.monotonic()
    device = describe_device(quantization.compute_dtype)
    source = local_model(lock)
    full_bytes = weight_bytes(source)
    require_space(output, full_bytes // 2, "the 4-bit model")
    model = AutoModelForCausalLM.from_pretrained(
        source,
        quantization_config=BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers has no types there
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.kind,
            bnb_4bit_use_double_quant=quantization.double_quantization,
            bnb_4bit_compute_dtype=device.dtype,
        ),
        dtype=device.dtype,
        device_map=device.map,
        use_safetensors=True,
        trust_remote_code=lock.trust_remote_code,
    )
    layers = _linear_layers(model)
    if not layers:
        raise ModelError(f"{lock.name}: no linear layer was quantised; this architecture cannot be trained in 4 bits")
    model.save_pretrained(output)
    write_provenance(output, base_model=lock, quantization=quantization)
    return QuantizationReport(
        model=lock.name,
        kind=quantization.kind,
        double_quantization=quantization.double_quantization,
        compute_dtype=device.precision,
        parameters=model.num_parameters(),
        quantized_parameters=sum(layer.in_features * layer.out_features for layer in layers.values()),
        layers=len(layers),
        full_precision_bytes=full_bytes,
        quantized_bytes=weight_bytes(output),
        relative_error=_relative_error(source, layers),
        seconds=time.monotonic() - start,
    )


def weight_bytes(folder: Path) -> int:
    """Bytes of all safetensors files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _linear_layers(model: "PreTrainedModel") -> dict[str, Any]:
    from bitsandbytes.nn.modules import Linear4bit

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def _relative_error(source: Path, layers: dict[str, Any]) -> float:
    """Root of sum((dequantised - original)^2) / sum(original^2) over a few layers."""
    import bitsandbytes.functional as bnb_functional
    from safetensors import safe_open

    names = list(layers)
    sampled = {f"{names[i * (len(names) - 1) // (SAMPLED_LAYERS - 1)]}.weight" for i in range(SAMPLED_LAYERS)}
    error = total = 0.0
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in sampled & set(tensors.keys()):
                weight = layers[name.removesuffix(".weight")].weight
                original = tensors.get_tensor(name).float()
                stored = bnb_functional.dequantize_4bit(weight.data, weight.quant_state).float().cpu()
                error += float((stored.reshape(original.shape) - original).square().sum())
                total += float(original.square().sum())
    return float((error / total) ** 0.5) if total else 0.0
