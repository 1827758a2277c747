"""Rows that cannot be read: why, and where they wait on disk until every source is read."""

import json
from dataclasses import dataclass, field
from typing import TextIO

from datasets import Dataset

from steps.rows import QUARANTINE_FEATURES, row_id_of, table_of

SHOWN = 20
"""Unreadable rows that the report names; the error names the first three of them."""


class UnreadableRow(ValueError):
    """A row that cannot be used, with every reason."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass
class UnreadableRows:
    """Collects unreadable rows in a text file, so that memory does not grow with their number."""

    spool: TextIO
    count: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    def add(self, source: str, location: str, texts: tuple[object, object], reasons: tuple[str, ...]) -> None:
        """Keep one row as far as it can be shown: what is not text as Python shows it, broken characters as "?"."""
        instruction, completion = map(_shown, texts)
        row = {
            "row_id": row_id_of(instruction, completion),
            "source": source,
            "location": location,
            "instruction": instruction,
            "completion": completion,
            "reasons": reasons,
        }
        self.spool.write(json.dumps(row) + "\n")
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append((location, "; ".join(reasons)))

    def dataset(self) -> Dataset:
        """All rows with ``QUARANTINE_FEATURES``."""
        self.spool.seek(0)
        return table_of(map(json.loads, self.spool), QUARANTINE_FEATURES)


def _shown(value: object) -> str:
    if value is None:
        return ""
    try:
        text = value if isinstance(value, str) else str(value)
    except (RecursionError, ValueError):  # lists in lists without end; a number of thousands of digits
        text = f"a value of type {type(value).__name__} that cannot be shown"
    return text.encode(errors="replace").decode()
