"""Folders that a process works in: what a killed one left is removed when the next one of the same kind is made."""

import glob
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """Give a folder of this process in the machine's temporary folder; it is removed when the block ends."""
    folder = own_folder(kind, Path(tempfile.gettempdir()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_folder(kind: str, parent: Path) -> Path:
    """A new folder whose name tells its process; those of this machine's processes that are gone are removed.

    Args:
        kind: how the folder's name begins.
        parent: the folder that it is made in.
    """
    own = psutil.Process()
    owner = f"{kind}-{platform.node()}-"
    for left in parent.glob(f"{glob.escape(owner)}*"):
        made_by = re.fullmatch(r"(\d+)-(\d+)-[^-]+", left.name.removeprefix(owner))
        if made_by and _begin(int(made_by[1])) != int(made_by[2]):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{owner}{own.pid}-{_begin(own.pid)}-", dir=parent))


def _begin(number: int) -> int | None:
    """When the process began, in hundredths of a second since the machine did; None where it is gone.

    With the number it names a process, whatever the clock is set to meanwhile.
    """
    try:
        since = float(psutil.Process(number).create_time() - psutil.boot_time())
    except psutil.NoSuchProcess:
        return None
    return round(100 * since)
