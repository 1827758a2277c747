"""Storing the base model as it is trained on, once."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.device import Device, describe_device, describe_hardware
from steps.errors import ModelError
from steps.files import require_space, weight_bytes
from steps.provenance import write_provenance
from steps.quantize.fit import STORED_SHARE, require_agreement, require_integers
from steps.quantize.params import QuantizationParameters
from steps.quantize.report import QuantizationReport
from steps.resolve.base_model import NOT_CAUSAL, stored_model
from steps.resolve.locks import ModelLock

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel

SAMPLED_LAYERS = 3
"""Layers whose weight error is measured: first, middle, last."""

INT8_ARITHMETIC = "int8, outliers in float16"

COPIED = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")


def quantize_model(lock: ModelLock, quantization: QuantizationParameters, output: Path) -> QuantizationReport:
    """Write the locked model into ``output`` with its linear layers as ``quantization`` says (safetensors).

    ``from_pretrained(output)`` loads it without quantising again. A model that comes quantised, or is to stay as it
    is, is copied.

    Raises:
        ModelError: the model comes quantised otherwise than the parameters say, has no layer to quantise, does not
            continue texts, or a file of its weights is cut short.
        DeviceError: the named precision is not to be had, or there is no space for the copy.
    """
    start = time.monotonic()
    require_agreement(lock, quantization)
    require_integers(describe_hardware(), quantization)
    device = describe_device(quantization.compute_dtype, key="parameters.quantization.compute_dtype")
    source = stored_model(lock)
    model = _store(lock, source, quantization, device, output)
    layers = quantized_layers(model)
    if not layers and quantization.kind != "none":
        raise ModelError(
            f"parameters.quantization.kind: {lock.name} has no linear layer to quantise in {quantization.kind}; "
            "set kind: none"
        )
    write_provenance(output, base_model=lock, quantization=quantization)
    parameters, stored = model.num_parameters(), lock.quantization
    return QuantizationReport(
        model=lock.name,
        kind=quantization.kind,
        double_quantization=stored.double_quantization if stored else quantization.nested,
        came_quantized=stored is not None,
        compute_dtype=(stored and stored.compute_dtype) or _compute_dtype(quantization, device),
        parameters=parameters,
        quantized_parameters=sum(layer.in_features * layer.out_features for layer in layers.values()),
        layers=len(layers),
        full_precision_bytes=2 * parameters if stored else weight_bytes(source),
        quantized_bytes=weight_bytes(output),
        relative_error=None if stored else _relative_error(source, layers),
        seconds=time.monotonic() - start,
    )


def _store(
    lock: ModelLock, source: Path, quantization: QuantizationParameters, device: Device, output: Path
) -> "PreTrainedModel":
    """Write the model into ``output`` and give it as it is there."""
    copied = lock.quantization is not None or quantization.kind == "none"
    share = 1.0 if copied else STORED_SHARE[quantization.kind]
    require_space(output, int(weight_bytes(source) * share), "the base model as it is trained on")
    if copied:
        _copy(lock, source, output)
        return _load(output, device, "auto", lock)
    model = _load(source, device, device.dtype, lock, quantization_config=_bitsandbytes(quantization, device))
    model.save_pretrained(output)
    return model


def quantized_layers(model: "PreTrainedModel") -> dict[str, Any]:
    """The layers of a model that bitsandbytes quantised, by name."""
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit | Linear8bitLt)}


def _copy(lock: ModelLock, source: Path, output: Path) -> None:
    patterns = [*COPIED, *(["*.py"] if lock.trust_remote_code else [])]
    for path in sorted(path for pattern in patterns for path in source.glob(pattern)):
        shutil.copyfile(path, output / path.name)


def _load(
    folder: Path, device: Device, dtype: "torch.dtype | str", lock: ModelLock, **quantization: "BitsAndBytesConfig"
) -> "PreTrainedModel":
    """``quantization_config`` is left out where the stored one counts: None would switch that off."""
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device.map,
            use_safetensors=True,
            trust_remote_code=lock.trust_remote_code,
            **quantization,
        )
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise ModelError(f"parameters.base_model: {lock.name} {NOT_CAUSAL}") from error
    return model


def _bitsandbytes(quantization: QuantizationParameters, device: Device) -> "BitsAndBytesConfig":
    from transformers import BitsAndBytesConfig

    if quantization.kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]  # transformers has no types there
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers has no types there
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.kind,
        bnb_4bit_use_double_quant=quantization.nested,
        bnb_4bit_compute_dtype=device.dtype,
    )


def _compute_dtype(quantization: QuantizationParameters, device: Device) -> str:
    if quantization.kind == "none":
        return "as the training chooses"
    return INT8_ARITHMETIC if quantization.kind == "int8" else device.precision


def _relative_error(source: Path, layers: dict[str, Any]) -> float:
    """Root of sum((dequantised - original)^2) / sum(original^2) over a few layers; 0 where there are none."""
    from safetensors import safe_open

    names = list(layers)
    chosen = {i * (len(names) - 1) // (SAMPLED_LAYERS - 1) for i in range(SAMPLED_LAYERS)} if names else set()
    sampled = {f"{names[index]}.weight" for index in chosen}
    error = total = 0.0
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in sampled & set(tensors.keys()):
                original = tensors.get_tensor(name).float()
                stored = _dequantized(layers[name.removesuffix(".weight")].weight)
                # GPT-2's layers are stored as inputs x outputs: of both readings the nearer one is the layer's own.
                readings = [one for one in (stored, stored.T) if one.shape == original.shape]
                error += min(float((one - original).square().sum()) for one in readings)
                total += float(original.square().sum())
    return float((error / total) ** 0.5) if total else 0.0


def _dequantized(weight: Any) -> Any:
    """A quantised weight as a float32 tensor on the CPU."""
    import bitsandbytes.functional as bnb_functional
    from bitsandbytes.nn.modules import Int8Params

    if isinstance(weight, Int8Params):
        return bnb_functional.int8_vectorwise_dequant(weight.data, weight.SCB).float().cpu()
    return bnb_functional.dequantize_4bit(weight.data, weight.quant_state).float().cpu()
