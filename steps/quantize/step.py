"""The step that makes the 4-bit base model."""

from typing import Annotated

from zenml import step
from zenml.config import CachePolicy

from materializers.directory import DirectoryMaterializer
from materializers.local import output_directory
from materializers.report import ReportMaterializer
from steps.artifacts import QuantizedModel
from steps.fingerprint import fingerprint
from steps.quantize.params import QuantizationParameters
from steps.quantize.report import QuantizationReport
from steps.resolve.locks import ModelLock


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "torch", "bitsandbytes", "transformers", "gguf")


@step(
    output_materializers={
        "quantized_model": DirectoryMaterializer,
        "quantization_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def quantize(
    model_lock: ModelLock, quantization: QuantizationParameters
) -> tuple[Annotated[QuantizedModel, "quantized_model"], Annotated[QuantizationReport, "quantization_report"]]:
    """Quantise the base model once and store it as 4-bit safetensors."""
    from steps.quantize.quantize import quantize_model

    with output_directory() as folder:
        report = quantize_model(model_lock, quantization, folder)
        return QuantizedModel(folder), report
