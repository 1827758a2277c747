"""What is new, gone and changed against the rows of the previous run."""

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from pydantic import BaseModel

from steps.rows import PREVIOUS_FEATURES

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
    now, before = _distinct(rows), _distinct(previous)
    new = now.filter(pc.invert(pc.is_in(now["row_id"], value_set=before["row_id"])))
    gone = before.filter(pc.invert(pc.is_in(before["row_id"], value_set=now["row_id"])))
    edited = pc.is_in(new["group"], value_set=gone["group"])
    replaced = pc.is_in(gone["group"], value_set=new["group"])
    changed, only_new, only_gone = new.filter(edited), new.filter(pc.invert(edited)), gone.filter(pc.invert(replaced))
    return Drift(
        previous_rows=len(previous),
        unchanged=len(now) - len(new),
        new=len(only_new),
        gone=len(only_gone),
        changed=len(changed),
        new_examples=only_new["location"][:SHOWN].to_pylist(),
        gone_examples=only_gone["location"][:SHOWN].to_pylist(),
        changed_examples=changed["location"][:SHOWN].to_pylist(),
    )


def _distinct(rows: Dataset) -> pa.Table:
    """Row id, group and location; of equal rows the first stands."""
    table = rows.select_columns(list(PREVIOUS_FEATURES)).with_format("arrow")[:]
    firsts = table.group_by("row_id", use_threads=False).aggregate([("group", "first"), ("location", "first")])
    return firsts.rename_columns({"group_first": "group", "location_first": "location"})
