"""The step that divides the rows."""

from typing import Annotated

from datasets import Dataset, DatasetDict
from zenml import step
from zenml.config import CachePolicy

from materializers.dataset import DatasetDictMaterializer, DatasetMaterializer
from materializers.report import ReportMaterializer
from steps.fingerprint import fingerprint
from steps.ingest.report import IngestReport
from steps.resolve.locks import DataLock
from steps.split.data_report import DataReport
from steps.split.params import SplitParameters
from steps.split.report import SplitReport
from steps.validate.report import ValidationReport


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "datasets", "pyarrow", "numpy", "scipy")


@step(
    output_materializers={
        "split_rows": DatasetDictMaterializer,
        "removed_rows": DatasetMaterializer,
        "split_report": ReportMaterializer,
        "data_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def split(
    rows: Dataset,
    splits: SplitParameters,
    evaluation_lock: DataLock,
    ingest_report: IngestReport,
    validation_report: ValidationReport,
) -> tuple[
    Annotated[DatasetDict, "split_rows"],
    Annotated[Dataset, "removed_rows"],
    Annotated[SplitReport, "split_report"],
    Annotated[DataReport, "data_report"],
]:
    """Divide the rows into train, validation and test; set duplicates and contaminated training rows aside.

    The reports of the rooms before are for ``data_report``, which shows on one page what the data is.
    """
    from steps.split.split import split_rows

    divided, removed, report = split_rows(rows, splits, evaluation_lock)
    data_report = DataReport(ingest=ingest_report, validation=validation_report, split=report)
    return divided, removed, report, data_report  # ZenML sees several outputs only in a literal tuple
