"""Each type of artifact comes back as it was saved, and equal content has an equal hash."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

import pytest
from datasets import Dataset, DatasetDict, Features, List, Value
from zenml.client import Client
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.dataset import DatasetDictMaterializer, DatasetMaterializer
from materializers.directory import DirectoryMaterializer
from materializers.local import output_directory
from materializers.report import ReportMaterializer
from steps.artifacts import Adapter
from steps.errors import DeviceError, ModelError
from steps.resolve.locks import DataLock, LockedSource

FEATURES = Features({"text": Value("string"), "ids": List(Value("int32"))})


def rows(count: int) -> Dataset:
    columns = {"text": [f"ünï {i}" for i in range(count)], "ids": [list(range(i % 7)) for i in range(count)]}
    return Dataset.from_dict(columns, features=FEATURES)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A new folder inside the artifact store, outside of which ZenML writes nothing."""
    with tempfile.TemporaryDirectory(dir=Client().active_stack.artifact_store.path) as folder:
        yield Path(folder)


def round_trip(kind: type[BaseMaterializer], uri: Path, data: Any) -> tuple[Any, str | None]:
    """What a later step loads, and the content hash."""
    uri.mkdir()
    writer = kind(str(uri))
    data_type = type(data)
    writer.save(data)
    content = writer.compute_content_hash(data)
    assert all(Path(path).is_file() for path in writer.save_visualizations(data))
    return kind(str(uri)).load(data_type), content


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_data_set(tmp_path: Path, count: int) -> None:
    loaded, content = round_trip(DatasetMaterializer, tmp_path / "a", rows(count))
    assert loaded.to_list() == rows(count).to_list()
    assert loaded.features == FEATURES
    _, again = round_trip(DatasetMaterializer, tmp_path / "b", rows(count).select(range(count)))
    assert again == content
    _, other = round_trip(DatasetMaterializer, tmp_path / "c", rows(count + 1))
    assert other != content


def test_equal_rows_in_other_chunks_have_the_same_hash(tmp_path: Path) -> None:
    from datasets import concatenate_datasets

    whole = rows(1500)
    parts = concatenate_datasets([whole.select(range(700)), whole.select(range(700, 1500))])
    hashes = [round_trip(DatasetMaterializer, tmp_path / str(i), data)[1] for i, data in enumerate((whole, parts))]
    assert hashes[0] == hashes[1]


def test_splits_with_different_columns(tmp_path: Path) -> None:
    splits = DatasetDict(train=rows(3), test=Dataset.from_list([{"x": 1}]), validation=rows(0))
    loaded, _ = round_trip(DatasetDictMaterializer, tmp_path / "a", splits)
    assert list(loaded) == ["train", "test", "validation"]
    assert {name: part.to_list() for name, part in loaded.items()} == {n: p.to_list() for n, p in splits.items()}


def adapter(folder: Path) -> Adapter:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "sub").mkdir()
    (folder / "sub" / "weights.safetensors").write_bytes(b"weights")
    return Adapter(folder)


def test_directory_is_moved_into_the_store(tmp_path: Path) -> None:
    made = adapter(tmp_path / "made")
    loaded, content = round_trip(DirectoryMaterializer, tmp_path / "a", made)
    assert isinstance(loaded, Adapter)
    assert (loaded.path / "sub" / "weights.safetensors").read_bytes() == b"weights"
    assert not made.path.exists()
    assert re.search(r"sub/weights\.safetensors\b.*?\b7\b", (tmp_path / "a" / "page.html").read_text()), "its bytes"
    assert round_trip(DirectoryMaterializer, tmp_path / "b", adapter(tmp_path / "made"))[1] == content


def test_which_run_made_a_directory_is_kept_and_is_no_content(tmp_path: Path) -> None:
    contents = []
    for run in ("one", "another"):
        made = adapter(tmp_path / "made")
        text = json.dumps({"base_model": {}, "made": {"run": run}})
        (made.path / "provenance.json").write_text(text)
        loaded, content = round_trip(DirectoryMaterializer, tmp_path / run, made)
        assert (loaded.path / "provenance.json").read_text() == text
        contents.append(content)
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda files: (files / "adapter_config.json").write_text("{ }"), "changed: adapter_config.json"),
        (lambda files: (files / "adapter_config.json").unlink(), "missing: adapter_config.json"),
        (lambda files: (files / "more").write_text(""), "new: more"),
    ],
    ids=["changed", "missing", "added"],
)
def test_damage_in_the_store_is_named(tmp_path: Path, damage: Any, found: str) -> None:
    round_trip(DirectoryMaterializer, tmp_path / "a", adapter(tmp_path / "made"))
    damage(tmp_path / "a" / "files")
    with pytest.raises(ModelError, match=f"/files: {found}; restore the stored files"):
        DirectoryMaterializer(str(tmp_path / "a")).load(Adapter)


def test_report(tmp_path: Path) -> None:
    lock = DataLock(sources=[LockedSource(name="<b>", files={"a": "1"})])
    loaded, content = round_trip(ReportMaterializer, tmp_path / "a", lock)
    assert loaded == lock
    assert content
    assert "&lt;b&gt;" in (tmp_path / "a" / "page.html").read_text()


def test_what_a_killed_step_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """A real process is killed while it holds its folder; one that lives keeps its own."""
    program = tmp_path / "program.py"
    program.write_text(
        "from materializers.local import output_directory\n"
        "with output_directory() as folder:\n    print('in', folder, flush=True)\n    input()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen([sys.executable, program], stdin=PIPE, stdout=PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if line.startswith("in "))  # ZenML may say that it makes its store
        left = Path(said.removeprefix("in ").strip())
        with output_directory() as other:
            assert left.is_dir()
        shutil.rmtree(other)
        process.kill()
    assert left.is_dir()
    with output_directory() as folder:
        assert not left.exists()
        assert folder.is_dir()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (DatasetMaterializer, lambda _: rows(3)),
        (DirectoryMaterializer, lambda folder: adapter(folder / "made")),
        (ReportMaterializer, lambda _: DataLock(sources=[])),
    ],
    ids=["data set", "directory", "report"],
)
def test_a_full_disk_is_one_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, make: Any
) -> None:
    def full(path: str, mode: str) -> IO[Any]:
        return Path("/dev/full").open(mode)

    store = Client().active_stack.artifact_store
    monkeypatch.setattr(store, "open", full)
    data = make(tmp_path)
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    with pytest.raises(DeviceError, match="the disk of the artifact store is full; free some space"):
        kind(str(artifact), artifact_store=store).save(data)
    assert list(tmp_path.iterdir()) == []
