"""Files that are either whole or absent, and hashes of them."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steps.errors import DeviceError


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """Give a temporary directory beside ``target`` that becomes ``target`` when the block ends without an error.

    If another process made ``target`` meanwhile, its directory stays and ours is dropped.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below ``directory``, by its path relative to it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_of(path) for path in files}


def require_space(
    directory: Path, needed: int, purpose: str, remedy: str = "point the artifact store at a larger disk"
) -> None:
    """Raise :class:`DeviceError` unless ``needed`` bytes are free where ``directory`` is or will be."""
    existing = directory
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DeviceError(
            f"{directory}: {purpose} needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            f"free some space or {remedy}"
        )
