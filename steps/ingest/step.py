"""The step that reads every source into rows of one shape."""

from typing import Annotated

from datasets import Dataset
from zenml import step
from zenml.config import CachePolicy

from materializers.dataset import DatasetMaterializer
from materializers.report import ReportMaterializer
from steps.fingerprint import fingerprint
from steps.ingest.report import IngestReport
from steps.resolve.locks import DataLock
from steps.resolve.params import DataParameters


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "datasets", "pyarrow")


@step(
    output_materializers={
        "raw_rows": DatasetMaterializer,
        "unreadable_rows": DatasetMaterializer,
        "ingest_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by, ignored_inputs=["previous_rows"]),
)
def ingest(
    data: DataParameters, data_lock: DataLock, previous_rows: Dataset
) -> tuple[
    Annotated[Dataset, "raw_rows"],
    Annotated[Dataset, "unreadable_rows"],
    Annotated[IngestReport, "ingest_report"],
]:
    """Read the locked sources; rows that cannot be read are set aside with their location and reason.

    ``previous_rows`` are for the report alone and no reason to read again.
    """
    from steps.ingest.ingest import ingest_sources

    rows, unreadable, report = ingest_sources(data, data_lock, previous_rows)
    return rows, unreadable, report  # ZenML sees several outputs only in a literal tuple
