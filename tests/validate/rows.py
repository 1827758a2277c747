"""Rows to judge, and the call that judges them."""

from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from steps.rows import ROW_FEATURES, row_id_of, table_of
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


def rows_of(*texts: tuple[str, str], license: str = "MIT", tests: tuple[str, ...] = ()) -> Dataset:
    """Rows with these instructions and completions; row i lies at ``file:i``."""
    return table_of(
        (
            {
                "row_id": row_id_of(instruction, completion),
                "source": "file",
                "location": f"file:{i}",
                "group": instruction,
                "license": license,
                "instruction": instruction,
                "completion": completion,
                "tests": tests,
            }
            for i, (instruction, completion) in enumerate(texts)
        ),
        ROW_FEATURES,
    )


def check(
    rows: Dataset, tokenizer_folder: Path, parameters: Mapping[str, object] | None = None
) -> tuple[Dataset, Dataset, ValidationReport]:
    """Judge the rows by these parameters."""
    return validate_rows(rows, ValidationParameters.model_validate(parameters or {}), TEXT, tokenizer_folder)
