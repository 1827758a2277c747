"""The step that makes the servable model."""

from typing import Annotated

from datasets import DatasetDict
from zenml import step
from zenml.config import CachePolicy

from materializers.directory import DirectoryMaterializer
from materializers.local import output_directory
from materializers.report import ReportMaterializer
from steps.artifacts import Adapter, MergedModel, QuantizedModel, TokenizerFiles
from steps.evaluate.report import EvaluationReport
from steps.fingerprint import fingerprint
from steps.format.report import FormatReport
from steps.ingest.report import IngestReport
from steps.merge.params import MergeParameters
from steps.merge.report import MergeReport
from steps.resolve.locks import DataLock, ModelLock
from steps.train.report import TrainingReport


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "torch", "transformers", "peft", "bitsandbytes", "safetensors", "gguf")


@step(
    output_materializers={
        "merged_model": DirectoryMaterializer,
        "merge_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def merge(
    model_lock: ModelLock,
    quantized_model: QuantizedModel,
    adapter: Adapter,
    tokenizer: TokenizerFiles,
    examples: DatasetDict,
    data_lock: DataLock,
    ingest_report: IngestReport,
    format_report: FormatReport,
    training_report: TrainingReport,
    evaluation_report: EvaluationReport,
    merging: MergeParameters,
) -> tuple[Annotated[MergedModel, "merged_model"], Annotated[MergeReport, "merge_report"]]:
    """Merge the adapter into the base, reload the result and compare it with base + adapter and what was trained.

    The reports are for the model card.
    """
    from steps.merge.card import Origins, write_card
    from steps.merge.merge import merge_adapter
    from steps.merge.shards import waiting_shards

    with output_directory() as folder:
        models = model_lock, quantized_model.path, adapter.path
        shards = waiting_shards(*models, merging.target, folder.parent)
        report = merge_adapter(*models, tokenizer.path, examples["test"], merging, folder, shards)
        learned = (ingest_report, format_report, training_report, evaluation_report, report)
        write_card(folder, Origins(model_lock, adapter.path, data_lock, *learned))
        return MergedModel(folder, when_stored=shards.remove), report
