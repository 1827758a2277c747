"""Training rows that hold much of an evaluation item: its question or its answer, word for word.

A row is compared by its n-grams of words (letters, digits, underscores; lower case; signs and spaces do not count)
with those of each question and each answer. That is the overlap test of GPT-3 (Brown et al., arXiv 2005.14165,
appendix C), but with the share of the item's n-grams that one row holds: functions have idioms in common, and one
shared n-gram proves nothing. Texts of fewer than ``n`` words match as a whole, from ``SHORTEST`` words on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset

from steps.rows import batches_of
from steps.split.ngrams import FIELDS, WORD_PATTERN, Hashes, Positions, ngrams_of, words_of

SHORTEST = 8
"""Words; GPT-3's smallest n. Shorter questions, such as "Sort a list", are common property."""
COMMON = 10
"""An n-gram in more questions and answers than this is a phrase of the trade and counts for none (GPT-3's bound)."""
FILTER_BITS = 24


@dataclass(frozen=True)
class Found:
    """For each row that shares an n-gram with an evaluation item: the part of an item of which it holds most."""

    rows: Positions
    parts: Positions
    """Number of the question (even) or answer (odd): twice the item's number, plus one for the answer."""
    shares: npt.NDArray[np.float64]


class Contamination:
    """The n-grams of evaluation items, and the rows that hold them."""

    def __init__(self, items: Dataset, n: int) -> None:
        """Take in items: questions (``instruction``) and answers (``completion``)."""
        from scipy.sparse import csr_array

        self.n = n
        grams, parts = _grams_and_owners(items, n)
        self.grams, columns, numbers = np.unique(grams, return_inverse=True, return_counts=True)
        rare = numbers[columns] <= COMMON
        ones = np.ones(int(rare.sum()), np.float64)
        shape = (len(self.grams), 2 * len(items))
        self.owners = csr_array((ones, (columns[rare], parts[rare])), shape)
        self.sizes = np.asarray(self.owners.sum(axis=0))
        self.seen = np.zeros(2**FILTER_BITS, bool)
        """Most n-grams of most rows are in no item: a look here spares the search among the sorted ones."""
        self.seen[_filter_places(self.grams)] = True

    def find(self, rows: Dataset) -> Found:
        """Look for the items in rows."""
        found: list[tuple[Positions, Positions, npt.NDArray[np.float64]]] = []
        start = 0
        for batch in batches_of(rows.select_columns(list(FIELDS))):
            owners, parts, shares = self._shares(batch)
            order = np.lexsort((parts, -shares, owners))  # of equal shares the first part
            _, first = np.unique(owners[order], return_index=True)
            best = order[first]
            found.append((owners[best] + start, parts[best], shares[best]))
            start += batch.num_rows
        if not found:
            return Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        return Found(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _shares(self, batch: pa.Table) -> tuple[Positions, Positions, npt.NDArray[np.float64]]:
        """Row, part and share of every pair that has an n-gram in common."""
        from scipy.sparse import csr_array

        grams, rows = _table_grams(batch, self.n)
        likely = self.seen[_filter_places(grams)]
        grams, rows = grams[likely], rows[likely]
        columns = np.minimum(np.searchsorted(self.grams, grams), max(len(self.grams) - 1, 0))
        known = self.grams[columns] == grams if len(self.grams) else np.zeros(0, bool)
        pairs = np.unique(np.stack([rows[known], columns[known]]), axis=1)
        held = csr_array((np.ones(pairs.shape[1]), tuple(pairs)), (batch.num_rows, len(self.grams)))
        common = (held @ self.owners).tocoo()
        return common.row.astype(np.int64), common.col.astype(np.int64), common.data / self.sizes[common.col]


def shared_text(row: Sequence[str], item: str) -> str:
    """The longest run of words that a row's texts have in common with an item's text, as the row spells it."""
    best = ""
    wanted = [match.group().lower() for match in WORD_PATTERN.finditer(item)]
    for text in row:
        places = list(WORD_PATTERN.finditer(text))
        words = [match.group().lower() for match in places]
        match = SequenceMatcher(None, words, wanted, autojunk=False).find_longest_match()
        if match.size:
            run = text[places[match.a].start() : places[match.a + match.size - 1].end()]
            best = max(best, run, key=len)
    return best


def _grams_and_owners(items: Dataset, n: int) -> tuple[Hashes, Positions]:
    """Every n-gram of every part once."""
    pieces = list(_part_grams(items, n))
    if not pieces:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    grams, parts = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return grams, parts


def _part_grams(items: Dataset, n: int) -> Iterator[tuple[Hashes, Positions]]:
    start = 0
    for batch in batches_of(items.select_columns(list(FIELDS))):
        for number, field in enumerate(FIELDS):
            found = ngrams_of(words_of(batch[field], signs=False), n, SHORTEST)
            order = np.lexsort((found.hashes, found.owners()))
            grams, owners = found.hashes[order], found.owners()[order]
            new = np.ones(len(grams), bool)
            new[1:] = (grams[1:] != grams[:-1]) | (owners[1:] != owners[:-1])
            yield grams[new], 2 * (owners[new] + start) + number
        start += batch.num_rows


def _table_grams(batch: pa.Table, n: int) -> tuple[Hashes, Positions]:
    found = [ngrams_of(words_of(batch[field], signs=False), n, SHORTEST) for field in FIELDS]
    return np.concatenate([one.hashes for one in found]), np.concatenate([one.owners() for one in found])


def _filter_places(grams: Hashes) -> Positions:
    places: Positions = (grams >> np.uint64(64 - FILTER_BITS)).astype(np.int64)
    return places
