"""What the blocks train: some token each, and the end token of every row."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from steps.errors import DataError
from steps.rows import batches_of
from steps.tokenizer import IGNORED

if TYPE_CHECKING:
    import numpy.typing as npt

NAMED = 5
"""Blocks and rows that an error names."""


def require_targets(split: Dataset, end: int, end_token: str, where: str) -> None:
    """Every block must train a token, and every row its end token, without which the model would not learn to stop.

    A row that was cut into several blocks has its end token in one of them.

    Args:
        split: blocks with ``labels`` and ``row_ids``.
        end: the end token's id.
        end_token: its text, for the error.
        where: the split's name, for the error.

    Raises:
        DataError: naming blocks and rows.
    """
    trained, ended = (np.concatenate(counts) for counts in zip(*_counts(split, end), strict=True))
    idle = np.flatnonzero(trained == 0)
    if len(idle):
        raise DataError(
            f"{where}: {_named(split, idle)} trains no token, every label is {IGNORED}; raise "
            "parameters.prompt.max_length, or set parameters.prompt.too_long to drop"
        )
    without = np.flatnonzero(ended == 0)
    if not len(without):
        return
    stopping = {row for names in split.select(np.flatnonzero(ended))["row_ids"] for row in names}
    endless = [n for n in without.tolist() if not stopping.issuperset(split[n]["row_ids"])]
    if endless:
        raise DataError(
            f"{where}: {_named(split, endless)} has no label that is the end token {end_token} (id {end}), so the "
            "model would not learn to stop; is it the tokenizer that the rows were formatted with?"
        )


def _counts(split: Dataset, end: int) -> Iterator[tuple["npt.NDArray[np.int64]", "npt.NDArray[np.int64]"]]:
    """For each batch of blocks: labels that count in the loss, and those that are the end token."""
    for batch in batches_of(split):
        labels = batch["labels"].combine_chunks()
        flat = labels.flatten().to_numpy()
        ends = np.concatenate([[0], np.cumsum(pc.list_value_length(labels).to_numpy())])
        yield _sums(flat != IGNORED, ends), _sums(flat == end, ends)


def _sums(marks: "npt.NDArray[np.bool_]", ends: "npt.NDArray[np.int64]") -> "npt.NDArray[np.int64]":
    total: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(marks)])
    sums: npt.NDArray[np.int64] = total[ends[1:]] - total[ends[:-1]]
    return sums


def _named(split: Dataset, numbers: "npt.NDArray[np.int64] | list[int]") -> str:
    some = [int(number) for number in numbers[:NAMED]]
    rows = [row for number in some for row in split[number]["row_ids"]]
    more = f" and {len(numbers) - NAMED:,} more" * (len(numbers) > NAMED)
    cut = ", ..." * (len(rows) > NAMED)
    return f"block {', '.join(map(str, some))}{more} (rows {', '.join(rows[:NAMED])}{cut})"
