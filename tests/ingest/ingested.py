"""Ingestion of sources that a test writes."""

import json
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from steps.ingest.ingest import ingest_sources
from steps.ingest.report import IngestReport
from steps.resolve.data import lock_data
from steps.resolve.locks import DataLock, LockedSource
from steps.resolve.params import DataParameters

GOOD = {"instruction": "Add", "output": "a + b"}


def ingested(*sources: Mapping[str, object], max_bad_share: float = 0.0) -> tuple[Dataset, Dataset, IngestReport]:
    data = DataParameters.model_validate({"sources": sources, "max_bad_share": max_bad_share})
    return ingest_sources(data, lock_data(data))


def from_hub(folder: Path, **source: object) -> tuple[Dataset, Dataset, IngestReport]:
    """A folder takes the place of the hub: the same loader, without a network."""
    data = DataParameters.model_validate({"sources": [{"hub": str(folder), **source}]})
    return ingest_sources(data, DataLock(sources=[LockedSource(name=str(folder), commit="c" * 40)]))


def jsonl(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)
