"""What the machine refused a run, in one line: space, a read-only disk, memory, the ZenML server.

Libraries raise such errors in types of their own, through tracebacks of hundreds of lines.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from steps.errors import DeviceError, PipelineError, causes
from steps.files import FULL_BYTES, existing_part

AGAIN = "then run the same again, which goes on after the last finished step"

FULL = "a disk is full"
READ_ONLY = "a disk is read-only"
MEMORY = "memory is short"
NO_SERVER = "the ZenML server does not answer"

SIGNS = {
    "No space left on device": FULL,
    "Disk quota exceeded": FULL,
    "database or disk is full": FULL,
    "Read-only file system": READ_ONLY,
    "attempt to write a readonly database": READ_ONLY,
    "out of memory": MEMORY,
    "can't allocate memory": MEMORY,
    "Cannot allocate memory": MEMORY,
    "Max retries exceeded with url": NO_SERVER,
    "Connection aborted": NO_SERVER,
}
"""In messages: the kernel's, SQLite's, torch's, and requests' to the server; safetensors and Arrow quote the kernel."""

DISK_FAILURES = ("PytorchStreamWriter failed", "disk I/O error", "unable to open database file")
"""In messages that do not say why; a disk without space is why if there is one."""


def refusal(error: BaseException) -> PipelineError | None:
    """The error as one line that says what to do, where the machine is its reason; a user's error is itself.

    An error's causes are looked at too.
    """
    chain = list(causes(error))
    for one in chain:
        if isinstance(one, PipelineError):
            return one
    for one in chain:
        reason = _reason(one)
        if reason:
            return DeviceError(f"{reason} ({_first_line(one)}){_remedy(reason)}")
    return None


def _reason(error: BaseException) -> str | None:
    text = str(error)
    if any(sign in text for sign in DISK_FAILURES):
        return FULL if any(free < FULL_BYTES for _, free in _places()) else None
    if isinstance(error, MemoryError):
        return MEMORY
    return next((reason for sign, reason in SIGNS.items() if sign in text), None)


def _remedy(reason: str) -> str:
    if reason == FULL:
        free = ", ".join(f"{free / 1e9:.2f} GB in {folder}" for folder, free in _places())
        return f": {free} are left; free some space, {AGAIN}"
    if reason == READ_ONLY:
        return f"; make it writable, or name another folder or artifact store, {AGAIN}"
    if reason == NO_SERVER:
        return f"; see that it runs (zenml status; the dashboard's own: make dashboard, or stop-dashboard), {AGAIN}"
    return f"; end what else uses it or take less (parameters.plan, evaluation.batch_size), {AGAIN}"


def _places() -> Iterator[tuple[Path, int]]:
    """Where a run writes, each disk once, and the bytes that are free there."""
    from huggingface_hub.constants import HF_HOME
    from platformdirs import user_cache_path
    from zenml.config.global_config import GlobalConfiguration

    store = Path(GlobalConfiguration().local_stores_path)
    disks: set[int] = set()
    for folder in (store, Path(tempfile.gettempdir()), user_cache_path("qlora-pipeline"), Path(HF_HOME)):
        existing = existing_part(folder)
        if (disk := os.stat(existing).st_dev) not in disks:
            disks.add(disk)
            yield folder, shutil.disk_usage(existing).free


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
