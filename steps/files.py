"""Files that are either whole or absent, and hashes of them."""

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from steps.errors import DeviceError

DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Numbers of an ``OSError`` whose reason is a disk, whatever was being done."""

FULL_BYTES = 1 << 20
"""A disk with fewer bytes free counts as full, where an error does not say why; libraries write in blocks."""


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


@contextmanager
def locked(path: Path, busy: Callable[[str], Exception]) -> Iterator[None]:
    """Hold the lock of a file, which a killed process lets go of; the holder may remove the file.

    Fails at once where another process holds it, since waiting would end in doing work that is done already.

    Args:
        path: the file; it is made, with its folders.
        busy: makes the error from the name of the process that holds it ("123 on its machine").
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                raise busy(stream.read()) from None
            if not _is_at(path, stream):
                continue  # its former holder has removed it meanwhile
            stream.truncate(0)
            stream.write(f"{os.getpid()} on {platform.node()}")
            stream.flush()
            yield
            return


def lock_of(folder: Path) -> Path:
    """The file beside a folder of unfinished work that who works on it holds."""
    return folder.with_suffix(".lock")


def remove_unheld(folder: Path) -> None:
    """Remove a folder of unfinished work and its lock, unless another process holds that."""
    with suppress(BlockingIOError), locked(lock_of(folder), BlockingIOError):
        shutil.rmtree(folder, ignore_errors=True)
        lock_of(folder).unlink()


def _is_at(path: Path, stream: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(path)


def digest_of(value: object) -> str:
    """SHA-256 of a value as JSON with sorted keys, hexadecimal: equal values give equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below ``directory``, by its path relative to it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_of(path) for path in files}


def differences(found: Mapping[str, str], recorded: Mapping[str, str]) -> list[str]:
    """Each file that is not what was recorded, as ``changed: FILE``, ``missing: FILE`` or ``new: FILE``."""
    return [
        f"{'missing' if name not in found else 'new' if name not in recorded else 'changed'}: {name}"
        for name in sorted(found.keys() | recorded.keys())
        if found.get(name) != recorded.get(name)
    ]


def weight_bytes(folder: Path) -> int:
    """Bytes of all safetensors files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def existing_part(path: Path) -> Path:
    """The path itself, or its nearest parent that is there: where it is or will be."""
    return next(one for one in (path, *path.parents) if one.exists())


def require_space(
    directory: Path, needed: int, purpose: str, remedy: str = "point the artifact store at a larger disk"
) -> None:
    """Raise :class:`DeviceError` unless ``needed`` bytes are free where ``directory`` is or will be."""
    free = shutil.disk_usage(existing_part(directory)).free
    if free < needed:
        raise DeviceError(
            f"{directory}: {purpose} needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            f"free some space or {remedy}"
        )
