"""Rows that say the same apart from spaces and case."""

import hashlib

import numpy as np
from datasets import Dataset

from steps.rows import batches_of
from steps.split.ngrams import FIELDS, Positions

DIGEST_BYTES = 16
"""Enough that two different rows among 10^9 agree with a probability below 10^-20."""


def repeats_of(rows: Dataset) -> Positions:
    """For each row the position of the first row that is equal to it after spaces and case are normalised.

    A row that repeats none stands at its own position. Instruction and completion both count.
    """
    digests = bytearray()
    for batch in batches_of(rows.select_columns(list(FIELDS))):
        for pair in zip(*(batch[field].to_pylist() for field in FIELDS), strict=True):
            text = "\0".join(" ".join(part.lower().split()) for part in pair)
            digests += hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()
    kinds = np.frombuffer(bytes(digests), np.dtype((np.void, DIGEST_BYTES)))
    _, first, kind = np.unique(kinds, return_index=True, return_inverse=True)
    repeats: Positions = first[kind]
    return repeats
