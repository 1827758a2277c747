"""The data rooms alone: what the rows are worth, before any weight is touched."""

from typing import Any

from pipelines.finetune import finetune
from pipelines.strict import part_of
from steps.format.params import PromptParameters
from steps.ingest.step import ingest
from steps.resolve.params import BaseModelParameters, DataParameters
from steps.resolve.step import resolve
from steps.split.params import SplitParameters
from steps.split.step import split
from steps.validate.params import ValidationParameters
from steps.validate.step import validate


@part_of(finetune)
def data(
    data: DataParameters,
    base_model: BaseModelParameters,
    validation: ValidationParameters = ValidationParameters(),
    splits: SplitParameters = SplitParameters(),
    prompt: PromptParameters = PromptParameters(),
    **_: Any,
) -> None:
    """Read, check and divide the rows; a fine-tuning with the same configuration finds these steps in the cache."""
    data_lock, _, tokenizer_lock, evaluation_lock, _, previous_rows, _, _ = resolve(
        data, base_model, splits.contamination.against, benchmarks=(), reference_text=None, tasks={}
    )
    raw_rows, _, ingest_report = ingest(data, data_lock, previous_rows)
    rows, _, validation_report = validate(raw_rows, tokenizer_lock, prompt, validation)
    split(rows, splits, evaluation_lock, ingest_report, validation_report)
