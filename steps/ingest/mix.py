"""Mixes sources by their weights: the largest mix in which no row is repeated."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from steps.rows import ROW_FEATURES, batches_of, dataset_of

if TYPE_CHECKING:
    import numpy.typing as npt


def shares_of(counts: Sequence[int], weights: Sequence[float]) -> list[int]:
    """How many rows of each source are in the mix: in proportion to the weights, rounded down, all of one source.

    Args:
        counts: rows that each source has.
        weights: their relative shares, above 0.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    scale = min(count / weight for count, weight in zip(counts, exact, strict=True))
    return [int(scale * weight) for weight in exact]


def smallest(rows: Dataset, count: int) -> Dataset:
    """The rows with the ``count`` smallest row ids, in their old order.

    A row id is a hash of the row's texts, so this is a random choice, yet one that depends on nothing else: where a
    source grows, a row stays unless a new one with a smaller id takes its place.
    """
    if count >= len(rows):
        return rows
    kept = np.zeros(len(rows), dtype=bool)
    kept[pc.sort_indices(rows.with_format("arrow")["row_id"])[:count].to_numpy()] = True
    return dataset_of(_filtered(rows, kept), ROW_FEATURES)


def _filtered(rows: Dataset, kept: "npt.NDArray[np.bool_]") -> Iterator[pa.Table]:
    start = 0
    for table in batches_of(rows):
        yield table.filter(pa.array(kept[start : start + len(table)]))
        start += len(table)
