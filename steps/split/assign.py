"""Which side a row is on: decided by the seed and its group alone, so that new rows never move old ones."""

import hashlib
from typing import Literal

from steps.split.params import SplitParameters

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


def side_of(group: str, splits: SplitParameters) -> Side:
    """Test below the test share, validation in the band above it, else train."""
    place = unit_hash(splits.seed, group)
    if place < splits.test:
        return "test"
    return "validation" if place < splits.test + splits.validation else "train"


def unit_hash(seed: int, text: str) -> float:
    """A number in [0, 1), uniform over texts and independent between seeds (53 bits of SHA-256)."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
