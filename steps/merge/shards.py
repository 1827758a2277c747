"""Shards of a merge that was killed wait in a folder of their own, so that the next one makes only what is missing."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from steps.errors import ModelError
from steps.files import digest_of, locked, sha256_of
from steps.fingerprint import fingerprint
from steps.provenance import decisive_hashes
from steps.quantize.device import describe_device
from steps.resolve.locks import ModelLock

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


class FinishedShards:
    """Shards of one merge, each whole and with its SHA-256 beside it; one process at a time may hold them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder.with_suffix(".lock")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out, and clear away what a killed one was writing.

        Raises:
            ModelError: another process holds the folder.
        """
        with locked(self.lock, _busy):
            self.folder.mkdir(exist_ok=True)
            for left in self.folder.glob(".writing-*"):
                left.unlink()
            yield

    def has(self, name: str) -> bool:
        """Whether the shard is there and is what was written."""
        path, record = self.folder / name, self._record(name)
        return path.is_file() and record.is_file() and record.read_text(encoding="utf-8") == sha256_of(path)

    def digest(self, name: str) -> str:
        """SHA-256 of a finished shard, as it was found when it was written."""
        return self._record(name).read_text(encoding="utf-8")

    def bytes(self) -> int:
        """Space that they take already."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    @contextmanager
    def writing(self, name: str) -> Iterator[tuple[Path, Callable[[str], object]]]:
        """Give a file to write and a function to call with its SHA-256; it becomes the shard if nothing goes wrong."""
        temporary = self.folder / f".writing-{name}"
        yield temporary, lambda digest: self._record(name).write_text(digest, encoding="utf-8")
        temporary.rename(self.folder / name)

    def give(self, names: Sequence[str], output: Path) -> None:
        """The shards in ``output`` too, without a copy: it lies on the same disk."""
        for name in names:
            try:
                os.link(self.folder / name, output / name)
            except OSError:  # a file system without hard links; after a kill this shard is made again
                (self.folder / name).rename(output / name)

    def remove(self) -> None:
        """Remove them, unless another process does the same work right now."""
        try:
            with locked(self.lock, _busy):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.lock.unlink()
        except ModelError:
            return

    @contextmanager
    def removed(self, *, when_done: bool) -> Iterator[None]:
        """Remove them where the work within fails, ``when_done`` where it succeeds too; a kill leaves them."""
        try:
            yield
        except Exception:
            self.remove()
            raise
        if when_done:
            self.remove()

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.sha256"


def _busy(process: str) -> ModelError:
    return ModelError(
        f"process {process} is doing this very merge; wait until it has ended and run again, which then finds the "
        "result in the cache"
    )


def shards_of(
    lock: ModelLock, adapters: Sequence[Path], parent: Path, dequantized: Path | None = None
) -> FinishedShards:
    """Where the shards of exactly this merge wait; other inputs, code or libraries have a folder of their own.

    Args:
        lock: the base model.
        adapters: their folders, in order.
        parent: folder on the disk of the output; the output itself is gone after a kill.
        dequantized: the quantised model whose weights the merge takes, if it takes any.
    """
    code = fingerprint(str(Path(__file__).with_name("stream.py")), *LIBRARIES)
    inputs = [decisive_hashes(folder) for folder in [*adapters, *([dequantized] if dequantized else [])]]
    work = [lock.files, bool(dequantized), inputs, code, describe_device().kind]
    digest = digest_of(work)
    return FinishedShards(parent / f".merge-{digest[:32]}")
