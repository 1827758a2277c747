"""The merged model quantised with bitsandbytes."""

from collections.abc import Mapping
from pathlib import Path

from steps.provenance import write_provenance
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.resolve.locks import ModelLock
from steps.tokenizer import load_tokenizer


def write_quantized(
    merged: Path, lock: ModelLock, quantization: QuantizationParameters, origins: Mapping[str, object], output: Path
) -> None:
    """Write the merged model into ``output`` as safetensors with quantised linear layers, and its tokenizer.

    ``from_pretrained(output)`` loads it; it goes through the code that quantised the base model.

    Args:
        merged: the merged model.
        lock: its base model.
        quantization: how.
        origins: the merged model's provenance.
        output: an empty folder.
    """
    weights = {path.name: "" for path in merged.glob("*.safetensors")}
    source = ModelLock(
        name=f"{lock.name}, tuned", folder=str(merged), files=weights, trust_remote_code=lock.trust_remote_code
    )
    quantize_model(source, quantization, output)
    load_tokenizer(merged).save_pretrained(output)
    # the quantisation's own record names the folder that the merged model lay in
    write_provenance(output, base_model=lock, merged=dict(origins), quantization=quantization)
