"""Which side a row is on: decided by the seed and its group alone, so that new rows never move old ones."""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from steps.split.ngrams import Positions
from steps.split.params import SplitParameters

SIDES = ("train", "validation", "test")


def sides_at(places: npt.NDArray[np.float64], bounds: tuple[float, float]) -> Positions:
    """The number in ``SIDES`` of each group's side by its :func:`unit_hash`: test lies below the first bound."""
    return 2 - np.searchsorted(bounds, places, side="right")


def bounds_of(splits: SplitParameters, rows_at: Iterable[tuple[float, int]]) -> tuple[float, float]:
    """Where in [0, 1) test ends and validation begins, and where validation ends and train begins.

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
        return test, _end_of(rows_at, test, splits.validation)
    return test, test + splits.validation


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
