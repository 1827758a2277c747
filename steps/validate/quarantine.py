"""Sets aside the rows that broke a rule, each with every reason."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.rows import QUARANTINE_FEATURES, table_of
from steps.validate.suite import POSITION, Rule

if TYPE_CHECKING:
    import pandas as pd


def reasons_of(
    frame: "pd.DataFrame", rules: Sequence[Rule], broken: Mapping[str, Sequence[int]]
) -> dict[int, list[str]]:
    """Every reason of each row that broke a rule, such as ``completion_parses: line 3: invalid syntax``."""
    reasons: dict[int, list[str]] = {}
    for rule in rules:
        bad = frame[frame[POSITION].isin(broken[rule.name])]
        for row in bad.to_dict("records"):
            fields = {str(name): value for name, value in row.items()}
            reasons.setdefault(fields[POSITION], []).append(f"{rule.name}: {rule.detail(fields)}")
    return reasons


def separate(rows: Dataset, reasons: Mapping[int, Sequence[str]]) -> tuple[Dataset, Dataset]:
    """The rows without a reason, and the others in quarantine; both in their old order."""
    kept = rows.select([i for i in range(len(rows)) if i not in reasons])
    bad = rows.select(sorted(reasons))
    names = [name for name in QUARANTINE_FEATURES if name != "reasons"]
    quarantine = table_of(
        (
            {**{name: row[name] for name in names}, "reasons": list(reasons[i])}
            for i, row in zip(sorted(reasons), bad, strict=True)
        ),
        QUARANTINE_FEATURES,
    )
    return kept, quarantine
