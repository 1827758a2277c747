"""The record that lies beside every model directory and says what it was made from."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

PROVENANCE = "provenance.json"
LINEAGE = "lineage.json"
"""Which run wrote a directory: not part of its content hash, or the same model would be a new one in every run."""


def write_provenance(folder: Path, **origins: BaseModel | Mapping[str, object]) -> None:
    """Write ``provenance.json``: what is named here, and no time, so that equal work gives equal files."""
    _write(folder / PROVENANCE, origins)


def write_lineage(folder: Path, **origins: BaseModel | Mapping[str, object]) -> None:
    """Write ``lineage.json``: ids of the run, its code and libraries, whatever differs where the work is equal."""
    _write(folder / LINEAGE, origins)


def _write(path: Path, origins: Mapping[str, BaseModel | Mapping[str, object]]) -> None:
    values = {
        name: origin.model_dump(mode="json") if isinstance(origin, BaseModel) else origin
        for name, origin in origins.items()
    }
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> dict[str, dict[str, object]]:
    """The record written by :func:`write_provenance`."""
    values: dict[str, dict[str, object]] = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    return values
