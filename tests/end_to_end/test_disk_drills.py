"""Failure drills of disks: full and read-only ones, mounted where only the drills see them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT

DISKS = {"store": 96, "temporary": 64, "checkpoints": 64, "hub": 64}
"""MiB of each: tokenizers ask for 50 free."""


def apart() -> list[str] | None:
    """The command that gives a process mounts of its own, as root or as anybody where the kernel allows it."""
    unshare = shutil.which("unshare")
    for command in ([unshare, "--mount"], [unshare, "--user", "--map-root-user", "--mount"]) if unshare else ():
        probe = [*command, "mount", "-t", "tmpfs", "none", "/mnt"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return [*map(str, command)]
    return None


@pytest.mark.slow
def test_disks_that_are_full_or_read_only(tmp_path: Path) -> None:
    """The drills are in disk_drills.py, which pytest runs in a process with these disks."""
    command = apart()
    if command is None:
        pytest.skip("no process may mount anything here")
    for name in DISKS:
        (tmp_path / name).mkdir()
    mounts = [f"mount -t tmpfs -o size={size}m none {tmp_path / name}" for name, size in DISKS.items()]
    drills = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider"]
    drills += ["--basetemp", str(tmp_path / "work"), "tests/end_to_end/disk_drills.py"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ZENML_"))}
    done = subprocess.run(
        [*command, "sh", "-ec", " && ".join([*mounts, 'exec "$@"']), "drills", *drills],
        cwd=ROOT,
        env={**environment, "DRILL_DISKS": str(tmp_path), "TMPDIR": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout
