"""When, where, by which run and from what a directory was made, and the hashes that show whether it still is that.

The record lies in the directory's ``provenance.json`` under ``made``. It decides no result: the artifact's content hash
leaves it out, so that equal work of another day or machine is equal. The hashes find accidents, not forgers.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from steps.files import differences, hashes
from steps.provenance import MADE, PROVENANCE, SEAL, text_of
from steps.resolve.locks import Environment

Scalar = str | int | float | bool


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class SourceRecord(_Values):
    """One data source; ``revision`` is a commit, a package's version, or a hash over its files' hashes."""

    name: str
    revision: str
    files: dict[str, str] = Field(default_factory=dict, description="path -> SHA-256")


class ArtifactRecord(_Values):
    """One artifact of the ZenML store, named so that it can be found and checked there.

    ``files`` and ``record`` are those of a directory, ``rows`` those of a data set by split.
    """

    name: str
    version: str
    id: str
    content_hash: str
    rows: dict[str, int] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    record: "Record | None" = None


class RunRecord(_Values):
    """The run, step and model version that made the directory; of a run without a model its fields are empty."""

    id: str
    name: str
    step: str
    step_id: str
    model: str
    version: str
    version_id: str


class Record(_Values):
    """All that is known when a directory is stored; ``files`` has the SHA-256 of every other file in it."""

    at: str = Field(description="UTC, ISO 8601")
    run: RunRecord
    environment: Environment
    config: dict[str, Any] = Field(description="parameters of the run, with their defaults")
    sources: list[SourceRecord]
    data: list[ArtifactRecord]
    figures: dict[str, dict[str, Scalar]] = Field(description="report -> its numbers, of the steps before")
    parents: dict[str, ArtifactRecord]
    files: dict[str, str] = Field(default_factory=dict, description="path -> SHA-256")


def write_record(folder: Path, record: Record) -> None:
    """Add the record to the folder's ``provenance.json``, and a seal over all of that file."""
    values = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    values[MADE] = record.model_dump(mode="json", exclude_defaults=True)
    values[SEAL] = _seal(values)
    (folder / PROVENANCE).write_text(text_of(values), encoding="utf-8")


def read_record(text: str) -> Record | None:
    """The record in the text of a ``provenance.json``; None where nothing was recorded."""
    made = json.loads(text).get(MADE)
    return Record.model_validate(made) if made else None


def sealed(text: str) -> bool:
    """Whether the text of a ``provenance.json`` is, byte for byte, what was written."""
    try:
        values = json.loads(text)
        return text == text_of(values) and values[SEAL] == _seal(values)
    except (ValueError, KeyError, TypeError):
        return False


def without_folders(text: str) -> str:
    """The text of a ``provenance.json`` to give away: of absolute paths no folder is left, and the seal is made anew.

    A path's last part stays; of files that lie together, what tells them from each other.
    """
    values = _without_folders(json.loads(text))
    return text_of({**values, SEAL: _seal(values)} if SEAL in values else values)


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        folders = [os.path.dirname(name) for name in value if _in_folder(name)]
        start = len(os.path.join(os.path.commonpath(folders), "")) if folders else 0
        return {name[start if _in_folder(name) else 0 :]: _without_folders(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return os.path.basename(value.rstrip("/")) if isinstance(value, str) and _in_folder(value) else value


def _in_folder(text: str) -> bool:
    """Whether a text is an absolute path that names a folder; ``/no_think``, as prompts have it, is none."""
    return text.startswith("/") and text.count("/") > 1 and "\n" not in text


def _seal(values: Mapping[str, object]) -> str:
    return hashlib.sha256(text_of({**values, SEAL: ""}).encode()).hexdigest()


def check_folder(folder: Path, record: Record) -> list[str]:
    """What differs in a directory from its own record; nothing where every byte is as it was."""
    wrong = differences(files_of(folder), record.files)
    if not sealed((folder / PROVENANCE).read_text(encoding="utf-8", errors="replace")):
        wrong.append(f"changed: {PROVENANCE}")
    return wrong


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but ``provenance.json``, which holds them."""
    return {name: digest for name, digest in hashes(folder).items() if name != PROVENANCE}
