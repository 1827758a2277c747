"""Rows that say nearly the same: MinHash and locality-sensitive hashing find candidates, their texts decide.

Two texts are as similar as their sets of word pairs: common pairs over all pairs (Jaccard). Two rows are as similar
as the less similar of their instructions and their completions: library functions share much of a docstring or much
of a body (``running_min`` and ``running_max``) and are still two rows.

MinHash: Broder, "On the resemblance and containment of documents", 1997, with the linear permutations
``a x + b mod 2^32``, ``a`` odd, of Broder et al., "Min-wise independent permutations", 2000. Bands: Leskovec,
Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset

from steps.rows import batches_of
from steps.split.ngrams import FIELDS, Hashes, Ngrams, Positions, mixed, ngrams_of, words_of

SHINGLE_WORDS = 2
PERMUTATIONS = 64
MISSED = 0.01
"""Largest probability that a pair exactly at the threshold is no candidate."""
COMPARED = 2
"""Within one bucket a row is compared with so many first rows and so many rows before it: buckets can be large."""
ENOUGH = 3
"""A row that is like so many others is compared with no further ones of its buckets, which bounds memory."""
PAIRS_AT_ONCE = 2_000
"""Pairs whose texts are in memory together; decides memory and speed, never the result."""

_digest = hashlib.shake_256(b"permutations").digest(8 * PERMUTATIONS)  # the same numbers for ever
FACTORS, SUMMANDS = np.frombuffer(_digest, "<u4").reshape(2, PERMUTATIONS)
FACTORS = FACTORS | np.uint32(1)


@dataclass(frozen=True)
class NearDuplicates:
    """Removed rows, the row that each is joined with, and how similar the two are; in the order of the rows."""

    removed: Positions
    kept: Positions
    similarity: npt.NDArray[np.float64]


def near_duplicates_of(rows: Dataset, candidates: Positions, threshold: float) -> NearDuplicates:
    """Find which of ``candidates``, most preferred first, are at least ``threshold`` similar to one preferred to it.

    A row is kept unless it is that similar to a row that is kept, so no removed row hangs on a chain of others.
    """
    pairs = _Pairs(rows, candidates, threshold)
    keys = _band_keys(rows, threshold)[:, candidates]
    for band in keys:
        pairs.check(_bucket_pairs(band), ENOUGH)
    leaders = pairs.leaders()
    while pairs.check(_second_hand(pairs, leaders), len(candidates)):
        leaders = pairs.leaders()
    found = sorted((int(candidates[rank]), int(candidates[leader]), s) for rank, (leader, s) in leaders.items())
    removed, kept, similarity = zip(*found, strict=True) if found else ((), (), ())
    return NearDuplicates(np.array(removed, np.int64), np.array(kept, np.int64), np.array(similarity, np.float64))


def bands_of(threshold: float) -> tuple[int, int]:
    """Number of bands and signature rows a band: the most rows with which at most ``MISSED`` are missed."""
    fitting = [
        (PERMUTATIONS // rows, rows)
        for rows in range(1, PERMUTATIONS + 1)
        if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= MISSED
    ]
    return fitting[-1] if fitting else (PERMUTATIONS, 1)


class _Pairs:
    """Pairs of rows by rank (place in the order of preference) and which of them are similar enough."""

    def __init__(self, rows: Dataset, ranked: Positions, threshold: float) -> None:
        self.rows = rows.select_columns(list(FIELDS)).with_format("arrow")
        self.ranked = ranked
        self.threshold = threshold
        self.similar: dict[int, dict[int, float]] = {}
        """By the rank of the less preferred row."""

    def check(self, pairs: Positions, enough: int) -> bool:
        """Compare the texts of pairs (two columns of ranks, preferred first); whether any new pair is similar.

        Rows that are known to be like ``enough`` others are passed over.
        """
        found = False
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            some = pairs[start : start + PAIRS_AT_ONCE]
            known = (self.similar.get(later, {}) for later in some[:, 1].tolist())
            undecided = [
                len(others) < enough and earlier not in others
                for earlier, others in zip(some[:, 0].tolist(), known, strict=True)
            ]
            some = some[np.array(undecided, bool)]
            similarities = similarities_of(self.rows, self.ranked[some])
            for index in np.flatnonzero(similarities >= self.threshold):
                earlier, later = some[index].tolist()
                self.similar.setdefault(later, {})[earlier] = float(similarities[index])
                found = True
        return found

    def leaders(self) -> dict[int, tuple[int, float]]:
        """For each removed row the kept row that is most like it, and the similarity."""
        leaders: dict[int, tuple[int, float]] = {}
        for rank in sorted(self.similar):
            kept = [(s, -earlier) for earlier, s in self.similar[rank].items() if earlier not in leaders]
            if kept:
                similarity, leader = max(kept)
                leaders[rank] = (-leader, similarity)
        return leaders


def _second_hand(pairs: _Pairs, leaders: dict[int, tuple[int, float]]) -> Positions:
    """Pairs of a kept row and the leaders of rows that are like it: not yet compared, and likely to be similar."""
    found = {
        (leaders[earlier][0], rank)
        for rank, similar in pairs.similar.items()
        if rank not in leaders
        for earlier in similar
        if earlier in leaders
    }
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _bucket_pairs(keys: Hashes) -> Positions:
    """Pairs of ranks with one key, preferred first; see ``COMPARED``."""
    order = np.argsort(keys, kind="stable")
    places = np.arange(len(order))
    new = np.ones(len(order), bool)
    new[1:] = keys[order[1:]] != keys[order[:-1]]
    starts = np.maximum.accumulate(np.where(new, places, 0))
    found = []
    for step in range(1, COMPARED + 1):
        before = places[places - step >= starts]
        found.append(np.stack([order[before - step], order[before]], axis=1))
        after = places[places >= starts + step]
        found.append(np.stack([order[starts[after] + step - 1], order[after]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def similarities_of(rows: Dataset, pairs: Positions) -> npt.NDArray[np.float64]:
    """Similarity of each pair of positions (two columns): the lower of that of both fields.

    ``rows`` has the fields alone, as Arrow.
    """
    needed, index = np.unique(pairs, return_inverse=True)
    left, right = index.reshape(-1, 2).T
    table = rows[needed.tolist()]
    return np.minimum(*(_jaccard(_shingles(table[field]), left, right) for field in FIELDS))


def _jaccard(shingles: Ngrams, left: Positions, right: Positions) -> npt.NDArray[np.float64]:
    from scipy.sparse import csr_array

    known, columns = np.unique(shingles.hashes, return_inverse=True)
    shape = (len(shingles.offsets) - 1, max(len(known), 1))
    sets = csr_array((np.ones(len(columns), np.int32), columns, shingles.offsets), shape)
    sets.sum_duplicates()
    sets.data[:] = 1
    sizes = np.diff(sets.indptr)
    common = sets[left].multiply(sets[right]).sum(axis=1)
    together = sizes[left] + sizes[right] - common
    similarities: npt.NDArray[np.float64] = np.where(together == 0, 1.0, common / np.maximum(together, 1))
    return similarities


def _shingles(texts: pa.ChunkedArray) -> Ngrams:
    return ngrams_of(words_of(texts, signs=True), SHINGLE_WORDS)


def _band_keys(rows: Dataset, threshold: float) -> Hashes:
    """One key for each band and row: rows with one key in any band are candidates."""
    bands, width = bands_of(threshold)
    keys = np.empty((bands, len(rows)), np.uint64)
    start = 0
    for batch in batches_of(rows.select_columns(list(FIELDS))):
        signatures = np.minimum(*(_signatures(batch[field], mark) for mark, field in enumerate(FIELDS)))
        for band, lines in enumerate(_bands(signatures, bands, width)):
            key = np.zeros(batch.num_rows, np.uint64)
            for line in lines:
                key = mixed(key ^ line)
            keys[band, start : start + batch.num_rows] = key
        start += batch.num_rows
    return keys


def _bands(signatures: npt.NDArray[np.uint32], bands: int, width: int) -> Iterator[npt.NDArray[np.uint32]]:
    for band in range(bands):
        yield signatures[band * width : (band + 1) * width]


def _signatures(texts: pa.ChunkedArray, mark: int) -> npt.NDArray[np.uint32]:
    """MinHash signatures, one column a text; ``mark`` keeps equal shingles of different fields apart."""
    shingles = _shingles(texts)
    values = (mixed(shingles.hashes + np.uint64(mark)) >> np.uint64(32)).astype(np.uint32)
    filled = np.flatnonzero(np.diff(shingles.offsets))
    signatures = np.full((PERMUTATIONS, len(texts)), 2**32 - 1, np.uint32)
    if len(filled):
        starts = shingles.offsets[filled]
        for line, factor, summand in zip(signatures, FACTORS, SUMMANDS, strict=True):
            line[filled] = np.minimum.reduceat(values * factor + summand, starts)
    return signatures
