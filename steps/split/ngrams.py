"""Hashes of the words and of the runs of words in texts, computed for a whole batch at once on its UTF-8 bytes.

A Python loop over the words of a million rows takes minutes; array operations take seconds. A run of bytes
``b0 b1 ...`` hashes to ``(b0 + 1) + (b1 + 1) p + (b2 + 1) p^2 + ...`` modulo 2^64 (Karp and Rabin, "Efficient
randomized pattern-matching algorithms", 1987), from differences of one running sum, and is then mixed by the finaliser
of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

FIELDS = ("instruction", "completion")
"""The texts by which rows are compared."""

BYTE_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
WORD_BASE = 0xD1342543DE82EF95

SPACE, WORD, SIGN = 0, 1, 2
KINDS = np.full(256, SIGN, np.uint8)
KINDS[:33] = SPACE
KINDS[127] = SPACE
KINDS[[byte for byte in range(256) if byte > 127 or chr(byte).isalnum() or chr(byte) == "_"]] = WORD
WORD_PATTERN = re.compile(r"[0-9A-Za-z_\x80-\U0010ffff]+")
"""What :func:`words_of` takes for a word, for the texts that a person is shown."""
LOWER = np.arange(256, dtype=np.uint8)
LOWER[65:91] += 32


@dataclass(frozen=True)
class Ngrams:
    """Hashes of all words, or runs of ``n`` neighbouring words, of a batch of texts, in order, repeated ones too."""

    hashes: Hashes
    offsets: Positions
    """Text ``i`` has those from ``offsets[i]`` to ``offsets[i + 1]``."""

    def owners(self) -> Positions:
        """The text of each hash."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def words_of(texts: pa.ChunkedArray, signs: bool) -> Ngrams:
    """Words (letters, digits, underscores, anything beyond ASCII) in lower case; with ``signs`` also each other sign.

    Spaces and control characters separate. Letters beyond ASCII keep their case.
    """
    data, bounds = _bytes_of(texts)
    kinds = KINDS[data]
    inside = kinds == WORD
    joined = inside[1:] & inside[:-1]  # byte i + 1 goes on with the word of byte i
    borders = bounds[(bounds > 0) & (bounds < len(data))]
    joined[borders - 1] = False
    counted = inside | (kinds == SIGN) if signs else inside
    first, last = counted.copy(), counted.copy()
    first[1:] &= ~joined
    last[:-1] &= ~joined
    starts, ends = np.flatnonzero(first), np.flatnonzero(last) + 1
    hashes = _runs(LOWER[data].astype(np.uint64) + np.uint64(1), starts, ends, BYTE_BASE)
    return Ngrams(hashes, np.searchsorted(starts, bounds))


def ngrams_of(words: Ngrams, n: int, shortest: int = 1) -> Ngrams:
    """Hashes of ``n`` neighbouring words; a text of fewer, but ``shortest`` or more, has one hash of all its words."""
    counts = np.diff(words.offsets)
    short = (counts >= shortest) & (counts < n)
    numbers = np.where(short, 1, np.maximum(counts - n + 1, 0))
    offsets = np.concatenate([[0], np.cumsum(numbers)])
    starts = np.arange(offsets[-1]) + np.repeat(words.offsets[:-1] - offsets[:-1], numbers)
    ends = np.minimum(starts + n, np.repeat(words.offsets[1:], numbers))
    return Ngrams(_runs(words.hashes, starts, ends, WORD_BASE), offsets)


def mixed(hashes: Hashes) -> Hashes:
    """Every bit of the result depends on every bit of the hash (SplitMix64's finaliser)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = hashes ^ (hashes >> np.uint64(31))
    return mixed


def _bytes_of(texts: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint8], Positions]:
    """All texts as one run of bytes, and where each starts and ends in it."""
    array = texts.cast(pa.large_string()).combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # what combine_chunks gives where there is no chunk
        array = pa.array([], pa.large_string())
    _, offsets, data = array.buffers()
    if len(array) == 0 or data is None:
        return np.zeros(0, np.uint8), np.zeros(len(array) + 1, np.int64)
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]], bounds - bounds[0]


def _runs(values: Hashes, starts: Positions, ends: Positions, base: int) -> Hashes:
    """The mixed polynomial hash of ``values`` from each start to its end."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(base, len(values)), out=sums[1:])
    return mixed((sums[ends] - sums[starts]) * _powers(pow(base, -1, 2**64), len(values) + 1)[starts])


def _powers(base: int, count: int) -> Hashes:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    result: Hashes = np.multiply.accumulate(powers)
    return result
