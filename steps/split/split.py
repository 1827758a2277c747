"""Divides rows into train, validation and test."""

from collections import Counter

from datasets import Dataset, DatasetDict

from steps.errors import DataError
from steps.lengths import lengths_of
from steps.split.assign import SIDES, side_of, unit_hash
from steps.split.duplicates import first_of_each
from steps.split.params import SplitParameters
from steps.split.report import Duplicate, SplitReport, SplitSide

SHOWN_DUPLICATES = 10


def split_rows(rows: Dataset, splits: SplitParameters) -> tuple[DatasetDict, SplitReport]:
    """Remove duplicates, take ``max_rows`` of what is left, and put every group on one side.

    Returns:
        The splits ``train``, ``validation`` and ``test`` (empty only where the share is 0), and the report.

    Raises:
        DataError: a side with a share above 0 came out empty.
    """
    distinct, removed = first_of_each(rows)
    used = _subset(rows, distinct, splits)
    groups = list(rows["group"])
    positions: dict[str, list[int]] = {side: [] for side in SIDES}
    for position in used:
        positions[side_of(groups[position], splits)].append(position)
    divided = DatasetDict({side: rows.select(positions[side]) for side in SIDES})
    _refuse_empty(divided, len({groups[position] for position in used}), splits)
    return divided, _report(rows, divided, removed, len(distinct) - len(used), splits)


def _subset(rows: Dataset, positions: list[int], splits: SplitParameters) -> list[int]:
    """The positions of the ``max_rows`` rows whose hash is smallest, in their old order."""
    if splits.max_rows is None or len(positions) <= splits.max_rows:
        return positions
    row_ids = list(rows["row_id"])
    return sorted(sorted(positions, key=lambda position: unit_hash(splits.seed, row_ids[position]))[: splits.max_rows])


def _shares(splits: SplitParameters) -> dict[str, float]:
    return {
        "train": 1 - splits.validation - splits.test,
        "validation": splits.validation,
        "test": splits.test,
    }


def _refuse_empty(divided: DatasetDict, groups: int, splits: SplitParameters) -> None:
    total = sum(len(side) for side in divided.values())
    for side, share in _shares(splits).items():
        if share > 0 and len(divided[side]) == 0:
            advice = (
                "lower parameters.splits.validation or parameters.splits.test"
                if side == "train"
                else f"raise parameters.splits.{side} (0 leaves it out on purpose)"
            )
            raise DataError(
                f"split {side!r} is empty: {total} rows in {groups} groups are too few for its share of "
                f"{share:.3g}; {advice} or give more rows"
            )


def _report(
    rows: Dataset, divided: DatasetDict, removed: list[tuple[int, int]], unused: int, splits: SplitParameters
) -> SplitReport:
    locations = list(rows["location"])
    return SplitReport(
        rows=len(rows),
        duplicates=len(removed),
        unused=unused,
        sides=[_side(name, divided[name], share) for name, share in _shares(splits).items()],
        duplicate_examples=[
            Duplicate(location=locations[position], same_as=locations[kept])
            for position, kept in removed[:SHOWN_DUPLICATES]
        ],
    )


def _side(name: str, rows: Dataset, share: float) -> SplitSide:
    return SplitSide(
        name=name,
        share=share,
        rows=len(rows),
        groups=len(set(rows["group"])),
        with_tests=sum(bool(tests) for tests in rows["tests"]),
        sources=dict(Counter(rows["source"]).most_common()),
        completion_chars=lengths_of(rows["completion"]),
    )
