"""The step that makes the servable model."""

from typing import Annotated

from datasets import DatasetDict
from zenml import step
from zenml.config import CachePolicy

from materializers.directory import DirectoryMaterializer
from materializers.local import output_directory
from materializers.report import ReportMaterializer
from steps.artifacts import Adapter, MergedModel, TokenizerFiles
from steps.fingerprint import fingerprint
from steps.merge.params import MergeParameters
from steps.merge.report import MergeReport
from steps.merge.shards import shards_of
from steps.resolve.locks import ModelLock


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "torch", "transformers", "peft", "safetensors")


@step(
    output_materializers={
        "merged_model": DirectoryMaterializer,
        "merge_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def merge(
    model_lock: ModelLock,
    adapter: Adapter,
    tokenizer: TokenizerFiles,
    examples: DatasetDict,
    merging: MergeParameters,
) -> tuple[Annotated[MergedModel, "merged_model"], Annotated[MergeReport, "merge_report"]]:
    """Merge the adapter into the full-precision base, reload the result and compare it with base + adapter."""
    from steps.merge.merge import merge_adapter

    with output_directory() as folder:
        shards = shards_of(model_lock, [adapter.path], folder.parent)
        report = merge_adapter(model_lock, adapter.path, tokenizer.path, examples["test"], merging, folder, shards)
        return MergedModel(folder, when_stored=shards.remove), report
