"""What a materializer does where the artifact store is no disk: an S3 server, with the store's own client."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from zenml.client import Client

from materializers.dataset import DatasetDictMaterializer, DatasetMaterializer
from materializers.directory import DirectoryMaterializer
from materializers.local import BLOCK, stored_files, stored_hashes
from materializers.report import ReportMaterializer
from steps.artifacts import Adapter
from steps.errors import ModelError
from steps.resolve.locks import DataLock, LockedSource
from tests.planted import places_of
from tests.s3_store import BUCKET, SECRET, SECRET_KEY, bucket, s3_stack


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The server of the store that is active while this file's tests run."""
    with s3_stack("materializers-on-s3") as address:
        yield address


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


ROWS = Dataset.from_list([{"text": f"ünï {i}", "ids": [i] * (i % 5)} for i in range(1200)])


@pytest.mark.parametrize(
    ("kind", "data", "values"),
    [
        (DatasetMaterializer, ROWS, lambda rows: rows.to_list()),
        (
            DatasetDictMaterializer,
            DatasetDict(train=ROWS, test=Dataset.from_list([{"x": 1}])),
            lambda splits: {name: rows.to_list() for name, rows in splits.items()},
        ),
        (ReportMaterializer, DataLock(sources=[LockedSource(name="a", files={"b": "1"})]), lambda report: report),
    ],
    ids=["data set", "splits", "report"],
)
def test_what_is_saved_on_s3_comes_back(endpoint: str, temporary: Path, kind: Any, data: Any, values: Any) -> None:
    uri = f"s3://{BUCKET}/{kind.__name__}"
    kind(uri).save(data)
    assert kind(uri).save_visualizations(data).keys() == {f"{uri}/page.html"}
    assert values(kind(uri).load(type(data))) == values(data)
    store = Client().active_stack.artifact_store
    assert len(stored_files(uri, store)) == len(list(bucket(endpoint).objects.filter(Prefix=f"{kind.__name__}/")))
    assert kind(uri).compute_content_hash(data)


def large_adapter(folder: Path) -> Adapter:
    """Its weights need several blocks, and several parts of an upload."""
    (folder / "sub").mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "sub" / "weights.safetensors").write_bytes(os.urandom(1000) * (BLOCK // 1000 * 2))
    return Adapter(folder)


def test_a_directory_is_streamed_to_s3_and_back(endpoint: str, temporary: Path, tmp_path: Path) -> None:
    made, uri = large_adapter(tmp_path / "made"), f"s3://{BUCKET}/adapter"
    weights = (made.path / "sub" / "weights.safetensors").read_bytes()
    DirectoryMaterializer(uri).save(made)
    assert not made.path.exists()
    loaded = DirectoryMaterializer(uri).load(Adapter)
    assert (loaded.path / "sub" / "weights.safetensors").read_bytes() == weights
    store = Client().active_stack.artifact_store
    assert stored_hashes(f"{uri}/files", store) == DirectoryMaterializer(uri)._manifest()
    pages = DirectoryMaterializer(uri).save_visualizations(loaded)
    with store.open(next(iter(pages)), "r") as stream:
        assert f"{len(weights):,}" in stream.read()


def test_a_changed_object_is_named_by_its_address(endpoint: str, temporary: Path, tmp_path: Path) -> None:
    uri = f"s3://{BUCKET}/damaged"
    DirectoryMaterializer(uri).save(large_adapter(tmp_path / "made"))
    bucket(endpoint).Object("damaged/files/adapter_config.json").put(Body=b"{ }")
    with pytest.raises(ModelError, match=f"{uri}/files: changed: adapter_config.json; restore"):
        DirectoryMaterializer(uri).load(Adapter)


def test_an_upload_that_fails_leaves_nothing(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is gone when the second file of the directory is uploaded."""
    made, uri = large_adapter(tmp_path / "made"), f"s3://{BUCKET}/failed"
    store = Client().active_stack.artifact_store
    opened = store.open

    def breaking(path: str, mode: str = "r") -> Any:
        if path.endswith("weights.safetensors"):
            raise ConnectionError("the connection is gone")
        return opened(path, mode)

    monkeypatch.setattr(store, "open", breaking)
    with pytest.raises(ConnectionError):
        DirectoryMaterializer(uri, artifact_store=store).save(made)
    assert not list(bucket(endpoint).objects.filter(Prefix="failed/"))
    assert not made.path.exists()


def test_the_store_is_registered_without_its_credentials(endpoint: str) -> None:
    """ZenML's database has them in its table of secrets, and the store's configuration names the secret."""
    zenml = Path(os.environ["ZENML_CONFIG_PATH"])
    assert any(place.endswith(": stack_component.configuration") for place in places_of(SECRET, zenml))
    assert places_of(SECRET_KEY, zenml) == []
