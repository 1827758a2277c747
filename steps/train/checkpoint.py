"""Checkpoints on disk: each whole or absent, verified before use, in a folder that only the same work finds."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import DatasetDict

from steps.device import describe_device
from steps.errors import DeviceError, TrainingError
from steps.files import FULL_BYTES, hashes, lock_of, locked, remove_unheld, require_space
from steps.fingerprint import fingerprint
from steps.provenance import decisive_hashes
from steps.rows import batches_of
from steps.train.params import CheckpointParameters, TrainingParameters

MANIFEST = "manifest.json"
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")


class Checkpoints:
    """The checkpoints of one piece of work, in ``root/work``; one process at a time may hold them."""

    def __init__(self, root: Path, work: str, parameters: CheckpointParameters) -> None:
        self.folder = root / work
        self.lock = lock_of(self.folder)
        self.parameters = parameters

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out, and clear away what a killed one was writing.

        Raises:
            DeviceError: the folder cannot be made.
            TrainingError: another process holds the folder.
        """
        with ExitStack() as lock:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(locked(self.lock, _busy))
            except OSError as error:
                raise DeviceError(
                    f"{self.folder}: no checkpoint can be written there ({error.strerror}); name another folder under "
                    "parameters.checkpoints.folder"
                ) from error
            for left in self.folder.glob(".writing-*"):
                shutil.rmtree(left)
            yield

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """Give a folder to write into that becomes the checkpoint after ``step`` if nothing goes wrong.

        Raises:
            DeviceError: the disk is full.
        """
        temporary, target = self.unfinished(step), self.folder / f"step-{step:08d}"
        temporary.mkdir()
        try:
            yield temporary
            manifest = json.dumps(hashes(temporary), indent=1)
            (temporary / MANIFEST).write_text(manifest, encoding="utf-8")
            for path in (*temporary.iterdir(), temporary):
                _to_disk(path)
            if target.exists():  # a damaged one, that was skipped
                shutil.rmtree(target)
            temporary.rename(target)
            _to_disk(self.folder)
        except Exception as error:
            if shutil.disk_usage(self.folder).free >= FULL_BYTES:
                raise  # torch's own error does not say that a disk is full
            raise DeviceError(
                f"{self.folder}: the disk is full, so that the checkpoint after step {step} cannot be written; free "
                "some space, or name another folder under parameters.checkpoints.folder, then run the same again, "
                "which goes on from the checkpoint before"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in self._newest_first()[self.parameters.keep :]:
            shutil.rmtree(old)

    def unfinished(self, step: int) -> Path:
        """Where the checkpoint after ``step`` lies while it is written."""
        return self.folder / f".writing-{step}"

    def require_space(self, needed: int) -> None:
        """Raise :class:`DeviceError` unless a checkpoint of ``needed`` bytes has room."""
        require_space(self.folder, needed, "a checkpoint", "name another folder under parameters.checkpoints.folder")

    def newest(self) -> Path | None:
        """The newest checkpoint whose files are those that were written; a damaged one is said and passed over."""
        for folder in self._newest_first():
            problem = _damage(folder)
            if not problem:
                return folder
            print(f"  train: checkpoint {folder} is damaged ({problem}); an older one is tried", flush=True)
        return None

    def remove(self) -> None:
        """Remove the checkpoints, unless another process does the same work right now."""
        remove_unheld(self.folder)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)


def step_of(checkpoint: Path) -> int:
    """Optimiser steps that were done when it was written."""
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints_of(
    blocks: DatasetDict,
    model_folder: Path,
    tokenizer_folder: Path,
    training: TrainingParameters,
    checkpoints: CheckpointParameters,
) -> Checkpoints:
    """The checkpoints of exactly this work: other inputs, parameters, code or libraries have a folder of their own."""
    root = Path(checkpoints.folder) if checkpoints.folder else default_root()
    return Checkpoints(root, work_of(blocks, model_folder, tokenizer_folder, training), checkpoints)


def default_root() -> Path:
    """Where checkpoints lie unless ``parameters.checkpoints.folder`` says otherwise."""
    from platformdirs import user_cache_path

    return user_cache_path("qlora-pipeline") / "checkpoints"


def work_of(blocks: DatasetDict, model_folder: Path, tokenizer_folder: Path, training: TrainingParameters) -> str:
    """First 32 hexadecimal digits of SHA-256 over all that decides what a training does.

    The kind of device and its precision count, since the state's numbers have that type; its name and the attention
    kernel do not, so that work goes on on another GPU.
    """
    device = describe_device(training.precision, training.attention)
    code = fingerprint(str(Path(__file__).with_name("train.py")), *LIBRARIES)
    files = {"model": decisive_hashes(model_folder), "tokenizer": decisive_hashes(tokenizer_folder)}
    digest = hashlib.sha256(json.dumps([training.model_dump(mode="json"), device.kind, device.precision]).encode())
    digest.update(json.dumps([code, files], sort_keys=True).encode())
    for name, split in sorted(blocks.items()):
        digest.update(name.encode())
        for batch in batches_of(split):
            for column in batch.column_names:
                digest.update(column.encode())
                lists = batch[column].combine_chunks()
                digest.update(pc.list_value_length(lists).to_numpy().tobytes())
                values = lists.flatten()
                texts = pa.types.is_string(values.type)
                digest.update("\0".join(values.to_pylist()).encode() if texts else values.to_numpy().tobytes())
    return digest.hexdigest()[:32]


def _busy(process: str) -> TrainingError:
    return TrainingError(
        f"process {process} is doing this very training; wait until it has ended and run again, which then finds the "
        "result in the cache"
    )


def _to_disk(path: Path) -> None:
    """Wait until the file's or folder's content has reached the disk: a machine may lose power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damage(folder: Path) -> str:
    """What is wrong with a checkpoint, "" where nothing is."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return f"{MANIFEST} is missing"
    try:
        written = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return f"{MANIFEST} is not JSON"
    found = {name: digest for name, digest in hashes(folder).items() if name != MANIFEST}
    wrong = sorted(name for name in written.keys() | found.keys() if written.get(name) != found.get(name))
    return f"not as written: {', '.join(wrong)}" if wrong else ""
