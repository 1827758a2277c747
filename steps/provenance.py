"""The record that lies beside every model directory and says what it was made from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from steps.files import hashes

PROVENANCE = "provenance.json"

MADE = "made"
"""Key of the record of when, where and by which run: added by the materializer, see ``steps/record.py``."""

SEAL = "sha256"
"""Key of the hash over the whole file, computed with this value empty."""


def write_provenance(folder: Path, **origins: BaseModel | Mapping[str, object]) -> None:
    """Write ``provenance.json``: what is named here, and no time, so that equal work gives equal files."""
    values = {
        name: origin.model_dump(mode="json") if isinstance(origin, BaseModel) else origin
        for name, origin in origins.items()
    }
    (folder / PROVENANCE).write_text(text_of(values), encoding="utf-8")


def read_provenance(folder: Path) -> dict[str, dict[str, object]]:
    """What :func:`write_provenance` wrote, without the record that was added."""
    return decisive_part((folder / PROVENANCE).read_text(encoding="utf-8"))


def decisive_part(text: str) -> dict[str, dict[str, object]]:
    """What the directory was made from, of the text of a ``provenance.json``."""
    values: dict[str, dict[str, object]] = json.loads(text)
    return {name: origin for name, origin in values.items() if name not in (MADE, SEAL)}


def text_of(values: Mapping[str, object]) -> str:
    """The file's text: equal values give equal bytes."""
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def decisive_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file; of ``provenance.json`` of its decisive part, whatever run wrote it."""
    found = hashes(folder)
    return with_decisive(found, (folder / PROVENANCE).read_text(encoding="utf-8")) if PROVENANCE in found else found


def with_decisive(manifest: Mapping[str, str], provenance: str) -> dict[str, str]:
    """The manifest with the hash of the decisive part in the place of the whole ``provenance.json``'s."""
    decisive = text_of(decisive_part(provenance))
    return {**manifest, PROVENANCE: hashlib.sha256(decisive.encode()).hexdigest()}
