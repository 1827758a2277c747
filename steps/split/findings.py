"""What the split found out about single rows, in the report's words and in those of the removed rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from steps.rows import BATCH_ROWS, QUARANTINE_FEATURES
from steps.split.contamination import Found, shared_text
from steps.split.near_duplicates import NearDuplicates
from steps.split.ngrams import FIELDS, Positions
from steps.split.report import ComparedSet, Contaminated, Duplicate, Example, NearDuplicate

COPIED = [name for name in QUARANTINE_FEATURES if name != "reasons"]
SHOWN_CHARACTERS = 1000
"""Of each text of an example."""


@dataclass(frozen=True)
class EvaluationItems:
    """All evaluation items, set after set."""

    items: Dataset
    names: Sequence[str]
    ends: Sequence[int]
    """Where each set ends among the items."""

    def set_of(self, items: Positions) -> Positions:
        """The number of the set that each item is in."""
        return np.searchsorted(self.ends, items, side="right")


@dataclass(frozen=True)
class Findings:
    """Duplicates, near-duplicates and contaminated rows by their positions in ``rows``."""

    rows: Dataset
    repeats: Positions
    """The position of the first row that says the same, for each row."""
    near: NearDuplicates
    found: Found
    above: npt.NDArray[np.bool_]
    """Which of ``found`` hold too much of their item."""
    removing: bool
    """Whether these are removed."""
    evaluation: EvaluationItems

    @property
    def repeated(self) -> Positions:
        """The positions of the rows that an earlier row says."""
        return np.flatnonzero(self.repeats != np.arange(len(self.repeats)))

    def duplicates(self, count: int) -> list[Duplicate]:
        """The first ``count``."""
        pairs = self._repeats(self.repeated[:count])
        return [Duplicate(location=row["location"], same_as=first["location"]) for row, first in pairs]

    def near_duplicates(self, count: int) -> list[NearDuplicate]:
        """The first ``count``."""
        return [
            NearDuplicate(
                row_id=row["row_id"],
                location=row["location"],
                kept_row_id=kept["row_id"],
                kept_location=kept["location"],
                similarity=similarity,
            )
            for row, kept, similarity in self._near(np.arange(len(self.near.removed))[:count])
        ]

    def near_duplicate_examples(self, count: int) -> list[Example]:
        """The texts of the ``count`` pairs that are least alike: the ones to look at."""
        return [
            Example(
                location=row["location"],
                text=_shown(row),
                kept_location=kept["location"],
                kept_text=_shown(kept),
                similarity=similarity,
            )
            for row, kept, similarity in self._near(np.argsort(self.near.similarity, kind="stable")[:count])
        ]

    def compared_sets(self) -> list[ComparedSet]:
        """What each evaluation set gave."""
        sets = self.evaluation.set_of(self.found.parts // 2)
        starts = [0, *self.evaluation.ends]
        return [
            ComparedSet(
                name=name,
                items=starts[number + 1] - starts[number],
                sharing=int((sets == number).sum()),
                contaminated=int((self.above & (sets == number)).sum()),
            )
            for number, name in enumerate(self.evaluation.names)
        ]

    def contaminated(self, count: int) -> list[Contaminated]:
        """The ``count`` rows that hold most of an item."""
        return list(self._contaminated(np.lexsort((self.found.rows, -self.found.shares))[:count]))

    def removed(self) -> Iterator[Mapping[str, object]]:
        """Every removed row with its reason: the copies, then the near-duplicates, then the contaminated ones."""
        for some in _chunks(self.repeated):
            for row, first in self._repeats(some):
                yield _with_reason(row, f"says the same as {_named(first)}")
        for places in _chunks(np.arange(len(self.near.removed))):
            for row, kept, similarity in self._near(places):
                yield _with_reason(row, f"near-duplicate of {_named(kept)}, similarity {similarity:.3f}")
        for places in _chunks(np.flatnonzero(self.above)) if self.removing else ():
            for row, one in zip(self._rows(self.found.rows[places]), self._contaminated(places), strict=True):
                yield _with_reason(row, f"holds {one.share:.0%} of the {one.part} of {one.item} ({one.evaluation_set})")

    def _repeats(self, positions: Positions) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each repeated row, and the first that says the same."""
        return zip(self._rows(positions), self._rows(self.repeats[positions]), strict=True)

    def _near(self, places: Positions) -> Iterator[tuple[dict[str, Any], dict[str, Any], float]]:
        """Each removed near-duplicate, the row that is kept, and their similarity."""
        near = self.near
        rows, kept = self._rows(near.removed[places]), self._rows(near.kept[places])
        return zip(rows, kept, near.similarity[places].tolist(), strict=True)

    def _contaminated(self, places: Positions) -> Iterator[Contaminated]:
        parts = self.found.parts[places]
        rows, items = self._rows(self.found.rows[places]), _rows_of(self.evaluation.items, parts // 2)
        sets = self.evaluation.set_of(parts // 2)
        for place, row, item, part, number in zip(places, rows, items, parts % 2, sets, strict=True):
            yield Contaminated(
                row_id=row["row_id"],
                location=row["location"],
                evaluation_set=self.evaluation.names[number],
                item=item["location"],
                part="answer" if part else "question",
                share=float(self.found.shares[place]),
                text=shared_text([row[field] for field in FIELDS], item[FIELDS[part]]),
                removed=bool(self.above[place]) and self.removing,
            )

    def _rows(self, positions: Positions) -> list[dict[str, Any]]:
        return _rows_of(self.rows.select_columns(COPIED), positions)


def _rows_of(rows: Dataset, positions: Positions) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows.with_format("arrow")[positions.tolist()].to_pylist() if len(positions) else []
    return found


def _shown(row: Mapping[str, str]) -> str:
    return "\n\n".join(row[field][:SHOWN_CHARACTERS] for field in FIELDS)


def _chunks(values: Positions) -> Iterator[Positions]:
    for start in range(0, len(values), BATCH_ROWS):
        yield values[start : start + BATCH_ROWS]


def _named(row: Mapping[str, str]) -> str:
    return f"{row['location']} (row {row['row_id']})"


def _with_reason(row: Mapping[str, object], reason: str) -> dict[str, object]:
    return {**row, "reasons": [reason]}
