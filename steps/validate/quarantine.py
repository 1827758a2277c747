"""Sets aside the rows that broke a rule, each with every reason."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value

from steps.rows import QUARANTINE_FEATURES, ROW_FEATURES, dataset_of
from steps.validate.columns import POSITION
from steps.validate.suite import JudgedRule

if TYPE_CHECKING:
    import pandas as pd

REASONS = Features({"reasons": List(Value("string"))})
"""One line for each row that came in; no reason means that the row is kept."""

SEPARATED_ROWS = 10_000
"""Rows in memory while they are divided; decides memory and speed, never the result."""

LONG = ("instruction", "completion", "group")
"""Columns that no reason needs."""


def reasons_of(
    frame: "pd.DataFrame", rules: Sequence[JudgedRule], broken: Mapping[str, Sequence[int]]
) -> dict[int, list[str]]:
    """Every reason of each row that broke one of the rules, such as ``completion_parses: line 3: invalid syntax``."""
    reasons: dict[int, list[str]] = {}
    short = frame.drop(columns=list(LONG))
    for rule in rules:
        bad = short[short[POSITION].isin(broken[rule.name])]
        for row in bad.to_dict("records"):
            fields = {str(name): value for name, value in row.items()}
            reasons.setdefault(fields[POSITION], []).append(f"{rule.name}: {rule.detail(fields)}")
    return reasons


def separate(rows: Dataset, reasons: Dataset) -> tuple[Dataset, Dataset]:
    """The rows without a reason, and the others in quarantine with theirs; both in their old order."""
    kept = dataset_of((_kept(*batch) for batch in _together(rows, reasons)), ROW_FEATURES)
    return kept, dataset_of((_set_aside(*batch) for batch in _together(rows, reasons)), QUARANTINE_FEATURES)


def _together(rows: Dataset, reasons: Dataset) -> Iterator[tuple[pa.Table, pa.ChunkedArray]]:
    for start in range(0, len(rows), SEPARATED_ROWS):
        place = slice(start, start + SEPARATED_ROWS)
        yield rows.with_format("arrow")[place], reasons.with_format("arrow")[place]["reasons"]
        pa.default_memory_pool().release_unused()  # else Arrow's allocator keeps as much as all rows together


def _kept(rows: pa.Table, reasons: pa.ChunkedArray) -> pa.Table:
    return rows.select(list(ROW_FEATURES)).filter(pc.equal(pc.list_value_length(reasons), 0))


def _set_aside(rows: pa.Table, reasons: pa.ChunkedArray) -> pa.Table:
    columns = rows.append_column("reasons", reasons).select(list(QUARANTINE_FEATURES))
    return columns.filter(pc.greater(pc.list_value_length(reasons), 0))
