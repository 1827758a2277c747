"""Divides rows into train, validation and test."""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, concatenate_datasets

from steps.errors import DataError
from steps.lengths import lengths_of_column
from steps.resolve.locks import DataLock
from steps.rows import QUARANTINE_FEATURES, table_of
from steps.split.assign import SIDES, bounds_of, sides_at, unit_hash
from steps.split.contamination import Contamination, Found
from steps.split.duplicates import repeats_of
from steps.split.evaluation_sets import ITEM_FEATURES, read_evaluation_set
from steps.split.findings import EvaluationItems, Findings
from steps.split.near_duplicates import NearDuplicates, near_duplicates_of
from steps.split.ngrams import Positions
from steps.split.params import SplitParameters
from steps.split.report import SplitReport, SplitSide

SHOWN = 10
LISTED = 200
"""Near-duplicates and contaminated rows that the report lists; the removed rows are all in their own data set."""
TEST_SPLIT = "the run's own test split"


def split_rows(
    rows: Dataset, splits: SplitParameters, evaluation_lock: DataLock
) -> tuple[DatasetDict, Dataset, SplitReport]:
    """Join duplicates, take ``max_rows`` of what is left, put every group on one side, and clean train of test items.

    Of rows that say the same the first stays; of near-duplicates the one with tests, else the first.

    Returns:
        The splits ``train``, ``validation`` and ``test`` (empty only where 0 is asked for), the removed rows with
        their reasons (``QUARANTINE_FEATURES``), and the report.

    Raises:
        DataError: a side that is asked for came out empty, or an evaluation set cannot be read.
    """
    repeats = repeats_of(rows)
    distinct = np.flatnonzero(repeats == np.arange(len(rows)))
    near = _near_duplicates(rows, distinct, splits)
    kept = np.setdiff1d(distinct, near.removed)
    used = _subset(rows, kept, splits)
    sides = _sides(rows, used, splits)
    evaluation = _evaluation_items(rows, sides["test"], evaluation_lock)
    found = _contamination(rows, sides["train"], evaluation.items, splits.contamination.ngram)
    above = found.shares > splits.contamination.max_share
    removing = splits.contamination.remove
    findings = Findings(rows, repeats, near, found, above, removing, evaluation)
    gone = found.rows[above & removing]
    sides["train"] = np.setdiff1d(sides["train"], gone)
    _refuse_empty(sides, _column(rows, "group"), splits, len(gone))
    counts = {
        "duplicates": len(rows) - len(distinct),
        "near_duplicates": len(near.removed),
        "unused": len(kept) - len(used),
        "contaminated": int(above.sum()),
        "contaminated_removed": len(gone),
    }
    divided = DatasetDict({side: rows.select(sides[side]) for side in SIDES})
    return divided, table_of(findings.removed(), QUARANTINE_FEATURES), _report(findings, sides, counts, splits)


def _report(
    findings: Findings, sides: Mapping[str, Positions], counts: dict[str, int], splits: SplitParameters
) -> SplitReport:
    return SplitReport(
        rows=len(findings.rows),
        **counts,
        threshold=splits.near_duplicate_threshold,
        ngram=splits.contamination.ngram,
        max_share=splits.contamination.max_share,
        sides=[_side(name, asked, findings.rows, sides[name]) for name, asked in _asked(splits).items()],
        duplicate_examples=findings.duplicates(SHOWN),
        near_duplicate_list=findings.near_duplicates(LISTED),
        near_duplicate_examples=findings.near_duplicate_examples(SHOWN),
        compared_sets=findings.compared_sets(),
        contamination=findings.contaminated(LISTED),
    )


def _near_duplicates(rows: Dataset, distinct: Positions, splits: SplitParameters) -> NearDuplicates:
    if splits.near_duplicate_threshold is None:
        return NearDuplicates(distinct[:0], distinct[:0], np.zeros(0))
    preferred = np.argsort(~_with_tests(rows)[distinct], kind="stable")
    return near_duplicates_of(rows, distinct[preferred], splits.near_duplicate_threshold)


def _with_tests(rows: Dataset) -> npt.NDArray[np.bool_]:
    lengths: npt.NDArray[np.int32] = pc.list_value_length(_column(rows, "tests")).to_numpy()
    return lengths > 0


def _column(rows: Dataset, name: str) -> pa.ChunkedArray:
    """The column as it lies on the disk."""
    return rows.select_columns([name]).with_format("arrow")[:][name]


def _subset(rows: Dataset, positions: Positions, splits: SplitParameters) -> Positions:
    """The positions of the ``max_rows`` rows whose hash is smallest, in their old order."""
    if splits.max_rows is None or len(positions) <= splits.max_rows:
        return positions
    order = np.argsort(_places(_column(rows, "row_id").take(positions), splits.seed), kind="stable")
    return np.sort(positions[order[: splits.max_rows]])


def _places(texts: pa.ChunkedArray, seed: int) -> npt.NDArray[np.float64]:
    return np.fromiter((unit_hash(seed, text) for text in texts.to_pylist()), np.float64, len(texts))


def _sides(rows: Dataset, used: Positions, splits: SplitParameters) -> dict[str, Positions]:
    places = _places(_column(rows, "group").take(used), splits.seed)
    bounds = bounds_of(splits, zip(*(part.tolist() for part in np.unique(places, return_counts=True)), strict=True))
    numbers = sides_at(places, bounds)
    return {side: used[numbers == number] for number, side in enumerate(SIDES)}


def _evaluation_items(rows: Dataset, test: Positions, lock: DataLock) -> EvaluationItems:
    """The items of the locked sets and of the test split."""
    own = rows.select(test).select_columns(list(ITEM_FEATURES))
    sets = {source.name: read_evaluation_set(source) for source in lock.sources} | {TEST_SPLIT: own}
    ends = list(accumulate(len(items) for items in sets.values()))
    return EvaluationItems(concatenate_datasets(list(sets.values())), list(sets), ends)


def _contamination(rows: Dataset, train: Positions, items: Dataset, n: int) -> Found:
    found = Contamination(items, n).find(rows.select(train))
    return Found(train[found.rows], found.parts, found.shares)


def _asked(splits: SplitParameters) -> dict[str, float | None]:
    """Share (below 1) or count of each side; None for what is left beside a count."""
    shares = splits.validation < 1 and splits.test < 1
    left = 1 - splits.validation - splits.test if shares else None
    return {"train": left, "validation": splits.validation, "test": splits.test}


def _refuse_empty(sides: Mapping[str, Positions], groups: pa.ChunkedArray, splits: SplitParameters, gone: int) -> None:
    positions = np.concatenate(list(sides.values()))
    for side, asked in _asked(splits).items():
        if len(sides[side]) > 0 or asked == 0:
            continue
        if side != "train":
            advice = f"raise parameters.splits.{side} (0 leaves it out on purpose)"
        elif gone:
            advice = f"{gone} contaminated rows were removed: see parameters.splits.contamination"
        else:
            advice = "lower parameters.splits.validation or parameters.splits.test"
        share = f" for its share of {asked:.3g}" if asked is not None and asked < 1 else ""
        raise DataError(
            f"split {side!r} is empty: {len(positions)} rows in {pc.count_distinct(groups.take(positions))} groups "
            f"are too few{share}; {advice} or give more rows"
        )


def _side(name: str, asked: float | None, rows: Dataset, positions: Positions) -> SplitSide:
    return SplitSide(
        name=name,
        asked=asked,
        rows=len(positions),
        groups=pc.count_distinct(_column(rows, "group").take(positions)).as_py(),
        with_tests=int(_with_tests(rows)[positions].sum()),
        sources=_counts(_column(rows, "source").take(positions)),
        licenses=_counts(_column(rows, "license").take(positions)),
        completion_chars=lengths_of_column(rows.select(positions), "completion"),
    )


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    found = ((one["values"], one["counts"]) for one in values.value_counts().to_pylist())
    return dict(sorted(found, key=lambda one: -one[1]))
