"""Which side a row is on: decided by the seed and its group alone, so that new rows never move old ones."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from steps.split.params import SplitParameters

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Bounds:
    """Places in [0, 1) at which a side ends: test lies below the first, validation below the second."""

    test: float
    validation: float

    def side_of(self, place: float) -> Side:
        """The side of a group by its :func:`unit_hash`."""
        if place < self.test:
            return "test"
        return "validation" if place < self.validation else "train"


def bounds_of(splits: SplitParameters, rows_at: Iterable[tuple[float, int]]) -> Bounds:
    """Where the sides end.

    Args:
        splits: shares, which are the widths of the bands, or counts, for which bands are as wide as it takes.
        rows_at: place and number of rows of every group; looked at for counts alone.
    """
    test = splits.test
    if test >= 1 or splits.validation >= 1:
        rows_at = sorted(rows_at)
    if test >= 1:
        test = _end_of(rows_at, 0.0, test)
    if splits.validation >= 1:
        return Bounds(test, _end_of(rows_at, test, splits.validation))
    return Bounds(test, test + splits.validation)


def unit_hash(seed: int, text: str) -> float:
    """A number in [0, 1), uniform over texts and independent between seeds (53 bits of SHA-256)."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _end_of(rows_at: Iterable[tuple[float, int]], start: float, count: float) -> float:
    """The end of the narrowest band from ``start`` that holds ``count`` rows, or 1."""
    held = 0
    for place, rows in rows_at:
        if place >= start:
            held += rows
            if held >= count:
                return math.nextafter(place, 1.0)
    return 1.0
