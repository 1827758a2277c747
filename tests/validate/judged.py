"""The call that judges rows, and what it judges them by."""

from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from steps.template import TemplateText
from steps.validate.params import ValidationParameters
from steps.validate.prompt import PromptText
from steps.validate.report import ValidationReport
from steps.validate.validate import validate_rows

GOOD = ("Add", "a + b")
TEMPLATE = TemplateText(
    system_frame="### INSTRUCTION:\n{system}{eos}\n\n",
    prompt="{system}Input: {instruction}{eos}\n\n### RESPONSE:\n",
)
TEXT = PromptText(TEMPLATE, "Be brief.", 128)


def check(
    rows: Dataset, tokenizer_folder: Path, parameters: Mapping[str, object] | None = None
) -> tuple[Dataset, Dataset, ValidationReport]:
    """Judge the rows by these parameters."""
    return validate_rows(rows, ValidationParameters.model_validate(parameters or {}), TEXT, tokenizer_folder)
