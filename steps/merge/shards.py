"""Shards of a merge that was killed wait in a folder of their own, so that the next one makes only what is missing."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from steps.device import describe_device
from steps.errors import ModelError
from steps.files import digest_of, lock_of, locked, remove_unheld, sha256_of
from steps.fingerprint import fingerprint
from steps.merge.params import Target
from steps.provenance import decisive_hashes
from steps.resolve.locks import ModelLock

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


class FinishedShards:
    """Shards of one merge, each whole and with its SHA-256 beside it; one process at a time may hold them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = lock_of(folder)

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
        remove_unheld(self.folder)

    @contextmanager
    def removed_on_failure(self) -> Iterator[None]:
        """Remove them where the work within fails; a kill leaves them."""
        try:
            yield
        except Exception:
            self.remove()
            raise

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.sha256"


def _busy(process: str) -> ModelError:
    return ModelError(
        f"process {process} is doing this very merge; wait until it has ended and run again, which then finds the "
        "result in the cache"
    )


def waiting_shards(lock: ModelLock, quantized: Path, adapter: Path, target: Target, parent: Path) -> FinishedShards:
    """Where the shards of exactly this merge wait; other inputs, code or libraries have a folder of their own.

    Args:
        lock: the base model.
        quantized: the same as it was trained on; its files count where the merge takes its weights.
        adapter: the adapter's folder.
        target: what it is merged into.
        parent: folder on the disk of the output; the output itself is gone after a kill.
    """
    code = fingerprint(str(Path(__file__).with_name("stream.py")), *LIBRARIES)
    dequantized = target == "dequantized"
    inputs = [decisive_hashes(folder) for folder in ([adapter, quantized] if dequantized else [adapter])]
    digest = digest_of([lock.files, dequantized, inputs, code, describe_device().kind])
    return FinishedShards(parent / f".merge-{digest[:32]}")
