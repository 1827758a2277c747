"""Whether base model, card and ``parameters.quantization`` fit together."""

from steps.device import Hardware
from steps.errors import DeviceError, ModelError
from steps.quantize.params import QuantizationParameters
from steps.resolve.locks import ModelLock

STORED_SHARE = {"nf4": 0.3, "fp4": 0.3, "int8": 0.6, "none": 1.0}
"""Bytes of the copy that is trained on over those of the 16-bit weights: 4/16 or 8/16, and what stays."""

TURING = (7, 5)
"""Compute capability from which NVIDIA GPUs multiply 8-bit integers (bitsandbytes' requirement for LLM.int8())."""


def require_agreement(lock: ModelLock, quantization: QuantizationParameters) -> None:
    """Raise :class:`ModelError` where the model comes quantised otherwise than the parameters say."""
    stored = lock.quantization
    if stored is None:
        return
    if stored.kind != quantization.kind:
        raise _disagreement(lock, "kind", stored.kind, quantization.kind)
    if quantization.double_quantization not in (None, stored.double_quantization):
        raise _disagreement(lock, "double_quantization", stored.double_quantization, quantization.double_quantization)
    if stored.kind != "int8" and quantization.compute_dtype not in ("auto", stored.compute_dtype):
        raise _disagreement(lock, "compute_dtype", stored.compute_dtype, quantization.compute_dtype)


def _disagreement(lock: ModelLock, name: str, there: object, wanted: object) -> ModelError:
    in_yaml, asked = (str(value).lower() for value in (there, wanted))
    return ModelError(
        f"parameters.quantization.{name}: {asked} is asked for, and {lock.name} comes quantised with {name} {in_yaml}; "
        f"set {name}: {in_yaml}, or give the full-precision model as parameters.base_model"
    )


def require_integers(hardware: Hardware, quantization: QuantizationParameters) -> None:
    """Raise :class:`DeviceError` where LLM.int8() is asked for on a GPU without 8-bit integer arithmetic."""
    if quantization.kind == "int8" and hardware.capability is not None and hardware.capability < TURING:
        raise DeviceError(
            f"parameters.quantization.kind: int8 needs a Turing GPU or a later one, and {hardware.name} is older; "
            "use nf4, fp4 or none"
        )
