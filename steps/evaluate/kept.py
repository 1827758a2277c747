"""Answers on disk: a killed evaluation goes on from them, and the base model's and production's serve every run
that asks the same.

A file for each side of an evaluation, named after everything that decides its answers but the prompts; its lines are
JSON, one answer each under the hash of its prompt's tokens and of how it was sampled, where it was. The tuned model's
file goes when the evaluation's report is stored. The base model's and production's stay as a cache. When a file is
opened, the folder's least recently used ones go until :data:`LIMIT_BYTES` are left: so do those of evaluations that
were killed and never run again.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from steps.errors import DeviceError
from steps.evaluate import generate
from steps.evaluate.generate import Answer
from steps.evaluate.inference import Side
from steps.evaluate.sampling import Draw
from steps.files import digest_of, hashes
from steps.fingerprint import fingerprint
from steps.quantize.device import describe_device

LIMIT_BYTES = 64 * 2**20
"""Of all files together: some 100,000 answers."""

SYNC_SECONDS = 5.0
"""A machine that loses power loses the answers of this time; a killed process loses none."""

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers")
NOT_DECISIVE = "provenance.json"


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


@dataclass(frozen=True)
class KeptAnswers:
    """Where the answers of each side of one evaluation lie."""

    base: Path
    tuned: Path
    production: Path | None = None

    def forget_tuned(self) -> None:
        """Remove what nobody will ask for again once the report is stored."""
        self.tuned.unlink(missing_ok=True)


def kept_answers(
    folder: str | None,
    model_folder: Path,
    adapter_folder: Path,
    tokenizer_folder: Path,
    max_new_tokens: int,
    production: tuple[Path, Path, Path] | None = None,
) -> KeptAnswers:
    """The files of exactly this work: other weights, tokenizer, decoding, precision, code or libraries have their own.

    The attention kernel and the name of the device do not count, nor does the batch: they change answers only where
    two tokens are tied within rounding.

    Args:
        folder: the folder of checkpoints, null for the user's cache folder; answers lie in it under ``evaluations``.
        model_folder: the 4-bit model.
        adapter_folder: the adapter, of the tuned side alone.
        tokenizer_folder: the tokenizer.
        max_new_tokens: tokens after which an answer is cut.
        production: the same three folders of the version in production, if its model is asked too.
    """
    from platformdirs import user_cache_path

    root = Path(folder) if folder else user_cache_path("qlora-pipeline")
    device = describe_device()
    code = fingerprint(str(generate.__file__), *LIBRARIES)

    def file(side: Side, model: Path, tokenizer: Path, *adapter: Path) -> Path:
        shared = [_files(model), _files(tokenizer), max_new_tokens, device.kind, device.precision, code]
        return root / "evaluations" / f"{side}-{_digest([*shared, *map(_files, adapter)])}.jsonl"

    return KeptAnswers(
        base=file("base", model_folder, tokenizer_folder),
        tuned=file("tuned", model_folder, tokenizer_folder, adapter_folder),
        production=file("production", production[0], production[2], production[1]) if production else None,
    )


def forget_oldest(folder: Path, limit: int, but: Path) -> None:
    """Remove the least recently used files until at most ``limit`` bytes are left, never ``but``."""
    files = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    excess = sum(path.stat().st_size for path in files) - limit
    for path in files:
        if excess > 0 and path != but:
            excess -= path.stat().st_size
            path.unlink()


def _files(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(folder).items() if name != NOT_DECISIVE}


def _digest(values: list[object]) -> str:
    return digest_of(values)[:32]


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
