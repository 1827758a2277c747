"""Sequences -> blocks."""

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value

from steps.rows import dataset_of

if TYPE_CHECKING:
    import numpy.typing as npt

WINDOW = 50_000
"""Sequences that are packed together: decides memory, and the fill of a few blocks."""

BLOCK_FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "labels": List(Value("int32")),
        "seq_lengths": List(Value("int32")),  # tokens of each sequence, in order
        "row_ids": List(Value("string")),  # the row of each sequence
    }
)


def pack(sequences: Dataset, max_length: int, packing: Literal["bfd", "wrapped", "none"]) -> Dataset:
    """Blocks of at most ``max_length`` tokens.

    Args:
        sequences: columns ``row_id``, ``input_ids`` and ``labels``.
        max_length: tokens of a block.
        packing: ``bfd`` packs whole sequences, best fit decreasing (Ding et al. 2024, arXiv:2404.10830);
            ``wrapped`` joins them and cuts every ``max_length`` tokens; ``none`` leaves each in a block of its own.

    Returns:
        ``BLOCK_FEATURES``; without ``seq_lengths`` unless the packing is ``bfd``, since the trainer keeps the
        sequences of a block from seeing each other by that column.
    """
    windows: Iterator[pa.Table] = sequences.with_format("arrow").iter(batch_size=WINDOW)
    if packing == "bfd":
        return dataset_of((_fill(window, max_length) for window in windows), BLOCK_FEATURES)
    features = Features({name: kind for name, kind in BLOCK_FEATURES.items() if name != "seq_lengths"})
    return dataset_of(_wrap(windows, max_length) if packing == "wrapped" else map(_alone, windows), features)


def best_fit_decreasing(lengths: "npt.NDArray[np.int32]", capacity: int) -> list[list[int]]:
    """Bins of indices whose lengths sum up to ``capacity`` at most.

    The longest come first, each into the bin with the least room that holds it, a new bin where none does.
    """
    bins: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # room -> bins
    rooms = 0  # bit r is set where a bin has room r
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            number = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, number = capacity, len(bins)
            bins.append([])
        bins[number].append(index)
        if room > length:
            with_room[room - length].append(number)
            rooms |= 1 << (room - length)
    return bins


def _fill(window: pa.Table, max_length: int) -> pa.Table:
    lengths = _lengths(window)
    bins = best_fit_decreasing(lengths, max_length)
    order = np.fromiter(chain.from_iterable(bins), np.int64)
    packed = window.combine_chunks().take(order)
    ends = _offsets(lengths[order])
    counts = _offsets([len(members) for members in bins])
    return _blocks(
        packed,
        ends[counts],
        row_ids=pa.ListArray.from_arrays(counts, packed["row_id"].combine_chunks()),
        seq_lengths=pa.ListArray.from_arrays(counts, lengths[order]),
    )


def _alone(window: pa.Table) -> pa.Table:
    names = pa.ListArray.from_arrays(np.arange(len(window) + 1, dtype=np.int32), window["row_id"].combine_chunks())
    return _blocks(window, _offsets(_lengths(window)), row_ids=names)


def _wrap(windows: Iterator[pa.Table], max_length: int) -> Iterator[pa.Table]:
    """One stream through all windows: the end that fills no block goes before the next window."""
    waiting: pa.Table | None = None
    for window in windows:
        joined = pa.concat_tables([waiting, window]) if waiting is not None else window
        ends = _offsets(_lengths(joined))
        full = int(ends[-1]) // max_length * max_length
        yield _cut(joined, ends, np.arange(0, full + 1, max_length, dtype=np.int32))
        first = int(np.searchsorted(ends, full, side="right")) - 1
        rest = joined.slice(first).to_pylist()
        for name in ("input_ids", "labels") if rest else ():
            rest[0][name] = rest[0][name][full - int(ends[first]) :]
        waiting = pa.Table.from_pylist(rest, schema=joined.schema)
    if waiting:
        ends = _offsets(_lengths(waiting))
        yield _cut(waiting, ends, ends[[0, -1]])


def _cut(stream: pa.Table, ends: "npt.NDArray[np.int32]", cuts: "npt.NDArray[np.int32]") -> pa.Table:
    """The blocks between the ``cuts`` of a stream whose sequences end at ``ends``."""
    first = np.searchsorted(ends, cuts[:-1], side="right") - 1
    last = np.searchsorted(ends, cuts[1:], side="left")
    names = stream["row_id"].to_pylist()
    return _blocks(
        stream, cuts, row_ids=pa.array([names[a:b] for a, b in zip(first, last, strict=True)], pa.list_(pa.string()))
    )


def _blocks(table: pa.Table, ends: "npt.NDArray[np.int32]", **columns: pa.Array) -> pa.Table:
    tokens = {
        name: pa.ListArray.from_arrays(ends, table[name].combine_chunks().flatten()) for name in ("input_ids", "labels")
    }
    every = tokens | columns
    return pa.table({name: every[name] for name in BLOCK_FEATURES if name in every})


def _lengths(table: pa.Table) -> "npt.NDArray[np.int32]":
    lengths: npt.NDArray[np.int32] = pc.list_value_length(table["input_ids"].combine_chunks()).to_numpy()
    return lengths


def _offsets(lengths: "npt.ArrayLike") -> "npt.NDArray[np.int32]":
    """Where each list starts and the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
