"""The call that judges rows, and what it judges them by."""

from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from steps.chat_template import bind_template
from steps.template import TemplateText
from steps.validate.params import ValidationParameters
from steps.validate.prompt import prompt_of
from steps.validate.report import ValidationReport
from steps.validate.validate import validate_rows

GOOD = ("Add", "a + b")
TEMPLATE = TemplateText(
    system_frame="### INSTRUCTION:\n{system}{eos}\n\n",
    prompt="{system}Input: {instruction}{eos}\n\n### RESPONSE:\n",
)
SYSTEM = "Be brief."


def check(
    rows: Dataset, tokenizer_folder: Path, parameters: Mapping[str, object] | None = None
) -> tuple[Dataset, Dataset, ValidationReport]:
    """Judge the rows by these parameters, for blocks of 128 tokens."""
    prompt = prompt_of(bind_template(TEMPLATE, SYSTEM, tokenizer_folder), 128)
    return validate_rows(rows, ValidationParameters.model_validate(parameters or {}), prompt)
