"""The step that sets bad rows aside.

It takes the prompt's parameters, whose model lies in the later room ``format``: rules about markers and tokens are
about the prompt that the run trains. The plain functions here get its values alone.
"""

from typing import Annotated

from datasets import Dataset
from zenml import step
from zenml.config import CachePolicy

from materializers.dataset import DatasetMaterializer
from materializers.report import ReportMaterializer
from steps.fingerprint import fingerprint
from steps.format.params import PromptParameters
from steps.resolve.locks import TokenizerLock
from steps.validate.params import ValidationParameters
from steps.validate.report import ValidationReport


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "great-expectations", "pandas", "pyarrow", "tokenizers", "transformers", "jinja2")


@step(
    output_materializers={
        "rows": DatasetMaterializer,
        "quarantine": DatasetMaterializer,
        "validation_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def validate(
    raw_rows: Dataset, tokenizer_lock: TokenizerLock, prompt: PromptParameters, validation: ValidationParameters
) -> tuple[
    Annotated[Dataset, "rows"],
    Annotated[Dataset, "quarantine"],
    Annotated[ValidationReport, "validation_report"],
]:
    """Check every row against the rules; quarantine those that break one, with all reasons."""
    from steps.chat_template import bind_template
    from steps.resolve.base_model import local_tokenizer
    from steps.validate.prompt import prompt_of
    from steps.validate.validate import validate_rows

    template = bind_template(prompt.template, prompt.system, local_tokenizer(tokenizer_lock.model))
    rows, quarantine, report = validate_rows(raw_rows, validation, prompt_of(template, prompt.max_length))
    return rows, quarantine, report  # ZenML sees several outputs only in a literal tuple
