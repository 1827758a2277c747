"""Materializers of data sets: one Arrow stream a split, memory-mapped when read."""

import hashlib
import json
import os
from typing import Any, ClassVar

import pyarrow as pa
from datasets import Dataset, DatasetDict
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.local import downloaded, local_path, saving, stored_json
from materializers.page import dataset_page, save_page
from materializers.shared import share_equal_files
from steps.files import digest_of

BATCH_ROWS = 1000
"""Rows of a record batch: fixed, so that equal rows give equal bytes."""

SPLITS = "splits.json"
ARROW = ".arrow"


class _ArrowMaterializer(BaseMaterializer):
    """What a single data set and a dictionary of splits share: each split is ``NAME.arrow``."""

    SKIP_REGISTRATION: ClassVar[bool] = True
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def _save_splits(self, splits: dict[str, Dataset]) -> None:
        digests: dict[str, str] = {}
        with saving(self.uri, self.artifact_store):
            for name, dataset in splits.items():
                path = os.path.join(self.uri, f"{name}{ARROW}")
                with self.artifact_store.open(path, "wb") as stream:
                    digests[name] = _write(dataset, stream)
            with self.artifact_store.open(os.path.join(self.uri, SPLITS), "w") as stream:
                json.dump(digests, stream, indent=1)
            folder = local_path(self.uri, self.artifact_store)
            if folder is not None:
                share_equal_files(folder, SPLITS, f"{{}}{ARROW}")

    def _load_splits(self) -> dict[str, Dataset]:
        folder = local_path(self.uri, self.artifact_store) or downloaded(self, self.uri)
        return {name: Dataset.from_file(str(folder / f"{name}{ARROW}")) for name in self._digests()}

    def _digests(self) -> dict[str, str]:
        return stored_json(os.path.join(self.uri, SPLITS), self.artifact_store)

    def compute_content_hash(self, data: Any) -> str:
        """Hash of the Arrow streams: equal rows in equal order give an equal hash."""
        return digest_of(self._digests())


class DatasetMaterializer(_ArrowMaterializer):
    """Materializer of one :class:`datasets.Dataset`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Dataset,)

    def save(self, data: Dataset) -> None:
        """Write the rows as one Arrow stream."""
        self._save_splits({"data": data})

    def load(self, data_type: type[Any]) -> Dataset:
        """The rows, memory-mapped from the store where it is local."""
        return self._load_splits()["data"]

    def save_visualizations(self, data: Dataset) -> dict[str, VisualizationType]:
        """A page with the first rows."""
        return save_page(self, dataset_page("Data set", {"data": data}))

    def extract_metadata(self, data: Dataset) -> dict[str, Any]:
        """Row count and column names."""
        return {"rows": len(data), "columns": list(data.column_names)}


class DatasetDictMaterializer(_ArrowMaterializer):
    """Materializer of a :class:`datasets.DatasetDict`: its splits may have different columns."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (DatasetDict,)

    def save(self, data: DatasetDict) -> None:
        """Write each split as one Arrow stream."""
        self._save_splits(dict(data))

    def load(self, data_type: type[Any]) -> DatasetDict:
        """The splits, memory-mapped from the store where it is local."""
        return DatasetDict(self._load_splits())

    def save_visualizations(self, data: DatasetDict) -> dict[str, VisualizationType]:
        """A page with the first rows of each split."""
        return save_page(self, dataset_page("Data set by split", data))

    def extract_metadata(self, data: DatasetDict) -> dict[str, Any]:
        """Row count of each split."""
        return {f"{name}_rows": len(dataset) for name, dataset in data.items()}


class _Hashing:
    """A writable stream that hashes what passes through it."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        block = bytes(data)
        self.digest.update(block)
        self.stream.write(block)
        return len(block)

    def flush(self) -> None:
        self.stream.flush()


def _write(dataset: Dataset, stream: Any) -> str:
    sink = _Hashing(stream)
    schema = dataset.features.arrow_schema
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in dataset.with_format("arrow").iter(batch_size=BATCH_ROWS):
            every_row = pa.array(range(len(batch)))
            writer.write_table(batch.cast(schema).take(every_row).combine_chunks())  # fresh buffers: equal bytes
    return sink.digest.hexdigest()
