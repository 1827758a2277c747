"""The step that turns rows into tokens."""

from typing import Annotated

from datasets import Dataset, DatasetDict
from zenml import step
from zenml.config import CachePolicy

from materializers.dataset import DatasetDictMaterializer, DatasetMaterializer
from materializers.directory import DirectoryMaterializer
from materializers.local import output_directory
from materializers.report import ReportMaterializer
from steps.artifacts import TokenizerFiles
from steps.fingerprint import fingerprint
from steps.format.params import PromptParameters
from steps.format.report import FormatReport
from steps.resolve.locks import TokenizerLock


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "tokenizers", "transformers", "jinja2")


@step(
    output_materializers={
        "blocks": DatasetDictMaterializer,
        "examples": DatasetDictMaterializer,
        "left_out_rows": DatasetMaterializer,
        "tokenizer": DirectoryMaterializer,
        "format_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def format(
    split_rows: DatasetDict, tokenizer_lock: TokenizerLock, prompt: PromptParameters
) -> tuple[
    Annotated[DatasetDict, "blocks"],
    Annotated[DatasetDict, "examples"],
    Annotated[Dataset, "left_out_rows"],
    Annotated[TokenizerFiles, "tokenizer"],
    Annotated[FormatReport, "format_report"],
]:
    """Render, tokenise and pack the rows; keep validation and test rows as single examples too."""
    from steps.format.format import format_rows

    with output_directory() as folder:
        blocks, examples, left_out, report = format_rows(split_rows, tokenizer_lock.model, prompt, folder)
        return blocks, examples, left_out, TokenizerFiles(folder), report
