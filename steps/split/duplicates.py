"""Rows that say the same apart from spaces and case."""

import hashlib

from datasets import Dataset


def first_of_each(rows: Dataset) -> tuple[list[int], list[tuple[int, int]]]:
    """Find rows whose instruction and completion are equal after spaces and case are normalised.

    Returns:
        Positions of the rows to keep (the first of each kind, in order), and for each removed row its
        position and the position of the row that it repeats.
    """
    first: dict[bytes, int] = {}
    removed = []
    for position, row in enumerate(rows.select_columns(["instruction", "completion"])):
        kept = first.setdefault(_normalised(row["instruction"], row["completion"]), position)
        if kept != position:
            removed.append((position, kept))
    return list(first.values()), removed


def _normalised(instruction: str, completion: str) -> bytes:
    texts = (" ".join(text.lower().split()) for text in (instruction, completion))
    return hashlib.sha256("\0".join(texts).encode()).digest()
