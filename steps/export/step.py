"""The step that makes the merged model's copies and pushes it."""

from typing import Annotated

from datasets import DatasetDict
from zenml import step
from zenml.config import CachePolicy

from materializers.directory import DirectoryMaterializer
from materializers.local import output_directory
from materializers.report import ReportMaterializer
from steps.artifacts import Adapter, ExportedModel, MergedModel
from steps.export.params import ExportParameters
from steps.export.report import ExportReport
from steps.fingerprint import fingerprint
from steps.promote.report import PromotionDecision


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "torch", "transformers", "bitsandbytes", "safetensors", "gguf")


@step(
    output_materializers={
        "exported_model": DirectoryMaterializer,
        "export_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def export(
    merged_model: MergedModel,
    adapter: Adapter,
    examples: DatasetDict,
    promotion_decision: PromotionDecision,
    exports: ExportParameters,
) -> tuple[Annotated[ExportedModel, "exported_model"], Annotated[ExportReport, "export_report"]]:
    """Write the merged model in other formats, compare each with it, and push what was promoted."""
    from steps.export.export import export_model

    with output_directory() as folder:
        report = export_model(merged_model.path, adapter.path, examples["test"], promotion_decision, exports, folder)
        return ExportedModel(folder), report
