"""Answers on disk: a killed evaluation goes on from them, and the base model's and production's serve every run
that asks the same.

A file for each side of an evaluation; its lines are JSON, one answer each under the hash of its prompt's tokens and of
how it was sampled, where it was. When a file is opened, the folder's least recently used ones go until
:data:`LIMIT_BYTES` are left: so do those of evaluations that were killed and never run again.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

from steps.errors import DeviceError
from steps.evaluate.answer import Answer
from steps.evaluate.sampling import Draw

LIMIT_BYTES = 64 * 2**20
"""Of all files together: some 100,000 answers."""

SYNC_SECONDS = 5.0
"""A machine that loses power loses the answers of this time; a killed process loses none."""


class AnswerFile:
    """The answers of one side; use as a context manager.

    Processes that do the same work at once may share it: each answer is one write to the file's end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        """Read what is there; a line that a kill or a power cut left half written is passed over.

        Raises:
            DeviceError: the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.stream = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise DeviceError(
                f"{self.path.parent}: no answer can be kept there ({error.strerror}); name another folder under "
                "parameters.checkpoints.folder"
            ) from error
        os.utime(self.path)
        forget_oldest(self.path.parent, LIMIT_BYTES, self.path)
        self.stream.seek(0)
        content = self.stream.read()
        if content and not content.endswith(b"\n"):
            self.stream.write(b"\n")
        self.answers = dict(found for line in content.splitlines() if (found := _read(line)))
        self.synced = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave everything on the disk."""
        os.fsync(self.stream.fileno())
        self.stream.close()

    def get(self, prompt_ids: Sequence[int], draw: Draw | None = None) -> Answer | None:
        """The greedy or the drawn answer to a prompt, None where there is none yet."""
        return self.answers.get(_prompt_key(prompt_ids, draw))

    def add(self, prompt_ids: Sequence[int], answer: Answer, draw: Draw | None = None) -> None:
        """Append an answer."""
        key = _prompt_key(prompt_ids, draw)
        self.answers[key] = answer
        self.stream.write(json.dumps({"prompt": key, **asdict(answer)}).encode() + b"\n")
        if time.monotonic() - self.synced > SYNC_SECONDS:
            os.fsync(self.stream.fileno())
            self.synced = time.monotonic()


def forget_oldest(folder: Path, limit: int, but: Path) -> None:
    """Remove the least recently used files until at most ``limit`` bytes are left, never ``but``."""
    found = []
    for path in folder.glob("*.jsonl"):
        with suppress(FileNotFoundError):  # another process has removed it meanwhile
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    excess = sum(size for _, size, _ in found) - limit
    for _, size, path in sorted(found):
        if excess > 0 and path != but:
            excess -= size
            path.unlink(missing_ok=True)


def _prompt_key(prompt_ids: Sequence[int], draw: Draw | None) -> str:
    """How a sampled answer was drawn, and its number, are part of it: greedy ones never mix with others."""
    asked = list(prompt_ids) if draw is None else [list(prompt_ids), asdict(draw)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


def _read(line: bytes) -> tuple[str, Answer] | None:
    try:
        values = json.loads(line)
        return values.pop("prompt"), Answer(**values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
