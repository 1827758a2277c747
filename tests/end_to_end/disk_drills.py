"""What test_disk_drills.py runs where DRILL_DISKS has a small disk for each use; ZenML's store is on ``store``."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from zenml.client import Client
from zenml.models import PipelineRunResponse

from tests.end_to_end.conftest import Workplace, loaded, ran
from tests.end_to_end.drilled import NO_STAGE, Drilled, in_production, left_behind
from tests.end_to_end.test_zenml_cli import zenml
from tests.resolve.test_hub_model import REPOSITORY, repository

__all__ = ["repository"]  # a fixture

DISKS = Path(os.environ["DRILL_DISKS"])


@contextmanager
def full(disk: str, free: int) -> Iterator[None]:
    """Somebody else's file takes the disk but for so many bytes."""
    folder = DISKS / disk
    about = os.statvfs(folder)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="somebody-elses-") as file:
        os.posix_fallocate(file.fileno(), 0, about.f_bavail * about.f_frsize - free)
        yield


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A file system that turned read-only, as after an error of its disk; root may not write there either."""
    mount, umount = (shutil.which(name) or name for name in ("mount", "umount"))
    subprocess.run([mount, "--bind", folder, folder], check=True)
    try:
        subprocess.run([mount, "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run([umount, "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def drilled(first_run: PipelineRunResponse, workplace: Workplace) -> Drilled:
    """A workplace whose model is in production; temporary files go to a disk of their own from then on."""
    place = Drilled(workplace.folder)
    place.run()
    tempfile.tempdir = os.environ["TMPDIR"] = str(DISKS / "temporary")
    return place


@pytest.fixture(autouse=True)
def untouched(drilled: Drilled, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """After every drill production is what it was, nothing is left, and no traceback was shown."""
    before = in_production()
    yield
    assert in_production() == before
    assert left_behind() == []
    assert list((DISKS / "temporary").iterdir()) == []
    assert "Traceback" not in "".join(capfd.readouterr())


def store() -> Path:
    return Path(Client().active_stack.artifact_store.path)


@pytest.mark.parametrize(("free", "fails_in"), [(0, "before"), (600_000, "in"), (1_500_000, "in")])
def test_the_store_s_disk_is_full(drilled: Drilled, free: int, fails_in: str) -> None:
    """Artifacts and ZenML's database lie on it."""
    changes: dict[str, dict[str, Any]] = {"splits": {"seed": free + 1}, **NO_STAGE}
    with full("store", free):
        said = drilled.failed(**changes)
    assert "free some space" in said
    assert str(DISKS / "store") in said
    assert {"split", "format", "promote"} & ran(drilled.run(**changes))


def test_the_temporary_disk_is_full(drilled: Drilled) -> None:
    changes: dict[str, dict[str, Any]] = {"splits": {"seed": 2}}
    with full("temporary", 0):
        said = drilled.failed(**changes)
    assert said.startswith("error: a disk is full ([Errno 28] No space left on device")
    assert f"0.00 GB in {DISKS / 'temporary'}" in said
    drilled.run(**changes, **NO_STAGE)


def test_the_disk_of_checkpoints_fills(drilled: Drilled) -> None:
    """Room for two checkpoints and no third: the next run goes on from the second."""
    changes: dict[str, dict[str, Any]] = {
        "training": {"seed": 3},
        "checkpoints": {"folder": str(DISKS / "checkpoints"), "every_steps": 2, "keep": 5},
        **NO_STAGE,
    }
    with full("checkpoints", 4_500_000):
        said = drilled.failed(**changes)
    assert "free some space or name another folder under parameters.checkpoints.folder" in said.replace(", or", " or")
    run = drilled.run(**changes)
    (resumed,) = loaded(run, "training_report").resumed_from
    assert resumed in (2, 4, 6, 8, 10)
    assert [path.name for path in (DISKS / "checkpoints").iterdir()] == ["evaluations"]


def test_the_disk_of_the_hub_s_files_is_full(
    drilled: Drilled, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(DISKS / "hub"))
    changes: dict[str, dict[str, Any]] = {"base_model": {"folder": None, "hub": REPOSITORY}, **NO_STAGE}
    with full("hub", 100_000):
        said = drilled.failed(**changes)
    assert "a disk is full" in said
    assert "quantize" in ran(drilled.run(**changes))


def test_the_artifact_store_is_read_only(drilled: Drilled) -> None:
    with read_only(store()):
        said = drilled.failed(**NO_STAGE, splits={"seed": 4})
    assert said.startswith("error: a disk is read-only (")
    assert str(store()) in said
    assert ran(drilled.run()) == {"resolve"}


def test_zenml_s_database_is_read_only(drilled: Drilled) -> None:
    """A process of its own: this one has the database open."""
    with read_only(Path(Client().zen_store.url.removeprefix("sqlite:///")).parent):
        result = zenml("pipeline", "run", "pipelines.finetune.finetune", "-c", str(drilled.config()))
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: a disk is read-only (")
    assert ran(drilled.run()) == {"resolve"}
