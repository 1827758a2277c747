"""The record that lies beside every model directory and says what it was made from."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

PROVENANCE = "provenance.json"


def write_provenance(folder: Path, **origins: BaseModel | Mapping[str, object]) -> None:
    """Write ``provenance.json``: what is named here, and no time, so that equal work gives equal files."""
    values = {
        name: origin.model_dump(mode="json") if isinstance(origin, BaseModel) else origin
        for name, origin in origins.items()
    }
    (folder / PROVENANCE).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> dict[str, dict[str, object]]:
    """The record written by :func:`write_provenance`."""
    values: dict[str, dict[str, object]] = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    return values
