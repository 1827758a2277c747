"""What is new, gone and changed against the rows of the previous run."""

from datasets import Dataset
from pydantic import BaseModel

from steps.rows import BATCH_ROWS, PREVIOUS_FEATURES

SHOWN = 10
"""Locations that the report names of each kind."""


class Drift(BaseModel):
    """Rows of this run against those of the previous one; equal texts are the same row, wherever they stand."""

    previous_rows: int
    unchanged: int
    new: int
    gone: int
    changed: int
    new_examples: list[str]
    gone_examples: list[str]
    changed_examples: list[str]


def compare_rows(rows: Dataset, previous: Dataset) -> Drift:
    """Count the rows that are in one of the two alone.

    A new row whose group (source function, problem, or equal instruction) also lost a row is a changed row.

    Args:
        rows: columns ``row_id``, ``group`` and ``location``.
        previous: ``PREVIOUS_FEATURES``.
    """
    now, before = _by_id(rows), _by_id(previous)
    new = {row_id: row for row_id, row in now.items() if row_id not in before}
    gone = {row_id: row for row_id, row in before.items() if row_id not in now}
    moved = {group for group, _ in new.values()} & {group for group, _ in gone.values()}
    changed = [location for group, location in new.values() if group in moved]
    only_new = [location for group, location in new.values() if group not in moved]
    only_gone = [location for group, location in gone.values() if group not in moved]
    return Drift(
        previous_rows=len(previous),
        unchanged=len(now) - len(new),
        new=len(only_new),
        gone=len(only_gone),
        changed=len(changed),
        new_examples=only_new[:SHOWN],
        gone_examples=only_gone[:SHOWN],
        changed_examples=changed[:SHOWN],
    )


def _by_id(rows: Dataset) -> dict[str, tuple[str, str]]:
    """Group and location by row id; of equal rows the first stands."""
    found: dict[str, tuple[str, str]] = {}
    for batch in rows.select_columns(list(PREVIOUS_FEATURES)).iter(batch_size=BATCH_ROWS):
        for row_id, group, location in zip(batch["row_id"], batch["group"], batch["location"], strict=True):
            found.setdefault(row_id, (group, location))
    return found
