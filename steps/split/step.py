"""The step that divides the rows."""

from typing import Annotated

from datasets import Dataset, DatasetDict
from zenml import step
from zenml.config import CachePolicy

from materializers.dataset import DatasetDictMaterializer
from materializers.report import ReportMaterializer
from steps.fingerprint import fingerprint
from steps.split.params import SplitParameters
from steps.split.report import SplitReport


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "datasets")


@step(
    output_materializers={
        "split_rows": DatasetDictMaterializer,
        "split_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def split(
    rows: Dataset, splits: SplitParameters
) -> tuple[Annotated[DatasetDict, "split_rows"], Annotated[SplitReport, "split_report"]]:
    """Divide the rows into train, validation and test, duplicates removed."""
    from steps.split.split import split_rows

    divided, report = split_rows(rows, splits)
    return divided, report  # ZenML sees several outputs only in a literal tuple
