"""Folders of a process: what a killed one left goes, whatever the clock says."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest

from steps.scratch import own_folder, scratch

PROGRAM = (
    "from steps.scratch import scratch\nwith scratch('work') as folder:\n    print(folder, flush=True)\n    input()\n"
)


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this test and of the processes that it starts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    return tmp_path


def test_it_is_gone_at_the_end(parent: Path) -> None:
    with scratch("work") as folder:
        (folder / "file").write_text("text")
    assert list(parent.iterdir()) == []


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_only_what_a_dead_process_left_goes(parent: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """The clock is set back or forward while a process works: the kernel then says that it booted at another time."""
    other = parent / f"work-another.machine-{os.getpid()}-1-abc"
    other.mkdir()
    (parent / f"work-{os.uname().nodename}-{os.getpid()}-1-abc").mkdir()  # the number of a process, not its begin
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        booted = psutil.boot_time()
        monkeypatch.setattr("psutil._psplatform.boot_time", lambda: booted + 3600 * hours)
        own = own_folder("work", parent)
        assert sorted(parent.iterdir()) == sorted([theirs, own, other])
        process.kill()
    own = own_folder("work", parent)
    assert theirs not in set(parent.iterdir())
    assert own.is_dir()
