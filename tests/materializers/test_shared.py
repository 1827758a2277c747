"""Equal large files of a local store are one file; nothing else is."""

from pathlib import Path

import pytest
from datasets import Dataset
from zenml.client import Client

from materializers.dataset import DatasetMaterializer
from materializers.directory import DirectoryMaterializer
from materializers.shared import SMALLEST
from steps.artifacts import MergedModel
from tests.materializers.test_materializers import rows

LARGE = b"weights" * SMALLEST


@pytest.fixture
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of artifacts in the store, at the depth at which ZenML puts them: ``STORE/STEP/NAME``."""
    store = Path(Client().active_stack.artifact_store.path)
    return store / tmp_path_factory.mktemp("step").name / "artifact"


def saved(model: Path, artifact: Path, weights: bytes) -> Path:
    """The files of a stored model."""
    model.mkdir()
    (model / "model.safetensors").write_bytes(weights)
    (model / "README.md").write_text("card")
    artifact.mkdir(parents=True)
    DirectoryMaterializer(str(artifact)).save(MergedModel(model))
    return artifact / "files"


def test_models_with_equal_weights_share_them(artifacts: Path, tmp_path: Path) -> None:
    one = saved(tmp_path / "one", artifacts / "run" / "a", LARGE)
    two = saved(tmp_path / "two", artifacts / "run" / "b", LARGE)
    other = saved(tmp_path / "other", artifacts / "run" / "c", LARGE + b".")
    weights = [(folder / "model.safetensors").stat() for folder in (one, two, other)]
    assert weights[0].st_ino == weights[1].st_ino != weights[2].st_ino
    assert (weights[0].st_nlink, weights[2].st_nlink) == (2, 1)
    assert (one / "README.md").stat().st_ino != (two / "README.md").stat().st_ino, "someone may edit a card in place"
    (one / "model.safetensors").unlink()
    assert DirectoryMaterializer(str(two.parent)).load(MergedModel).path == two, "either can be deleted alone"


def test_a_damaged_file_does_not_spread(artifacts: Path, tmp_path: Path) -> None:
    one = saved(tmp_path / "one", artifacts / "run" / "a", LARGE)
    (one / "model.safetensors").write_bytes(LARGE[::-1])
    two = saved(tmp_path / "two", artifacts / "run" / "b", LARGE)
    assert (two / "model.safetensors").read_bytes() == LARGE
    assert DirectoryMaterializer(str(two.parent)).load(MergedModel).path == two


def test_equal_rows_of_two_artifacts_are_stored_once(artifacts: Path) -> None:
    folders = [artifacts.with_name(name) / "run" / "a" for name in ("raw_rows", "rows", "fewer")]
    for folder, count in zip(folders, (2500, 2500, 2400), strict=True):
        folder.mkdir(parents=True)
        DatasetMaterializer(str(folder)).save(rows(count))
    inodes = [(folder / "data.arrow").stat().st_ino for folder in folders]
    assert inodes[0] == inodes[1] != inodes[2]
    assert DatasetMaterializer(str(folders[1])).load(Dataset).to_list() == rows(2500).to_list()
