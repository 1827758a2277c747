"""Nearly equal rows are joined with one that is kept, and with nothing else."""

import re

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.resolve.locks import DataLock
from steps.rows import QUARANTINE_FEATURES
from steps.split.near_duplicates import MISSED, PERMUTATIONS, bands_of, near_duplicates_of, similarities_of
from steps.split.params import SplitParameters
from steps.split.split import split_rows
from tests.rows import rows_of

ALONE = SplitParameters(validation=0, test=0)


def body(kind: int, *changed: int) -> str:
    """Thirty lines that no other ``kind`` has, with some of them changed."""
    return "\n".join(f"v{i} = k{kind}_{i}" + (" + 1" if i in changed else "") for i in range(30))


def similarity(left: str, right: str) -> float:
    """The definition, word by word, without any of the code under test."""

    def pairs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[0-9a-z_\x80-\U0010ffff]+|[!-/:-@\[-^`{-~]", text.lower())
        return {tuple(words[i : i + 2]) for i in range(max(len(words) - 1, 1))} if words else set()

    a, b = pairs(left), pairs(right)
    return len(a & b) / len(a | b) if a | b else 1.0


def locations(rows: Dataset) -> list[str]:
    return list(rows["location"])


def test_a_changed_line_makes_a_near_duplicate_and_another_function_does_not() -> None:
    rows = rows_of(("Do", body(1)), ("Do", body(2)), ("Do", body(1, 7)))
    divided, removed, report = split_rows(rows, ALONE, DataLock(sources=[]))
    assert locations(divided["train"]) == ["file:0", "file:1"]
    assert removed.features == QUARANTINE_FEATURES
    expected = similarity(body(1), body(1, 7))
    assert removed[0]["location"] == "file:2"
    assert removed[0]["reasons"] == [f"near-duplicate of file:0 (row {rows[0]['row_id']}), similarity {expected:.3f}"]
    (pair,) = report.near_duplicate_list
    assert (pair.row_id, pair.kept_row_id) == (rows[2]["row_id"], rows[0]["row_id"])
    assert pair.similarity == pytest.approx(expected)
    assert "removed: file:2" in report.html()


def test_the_row_with_tests_is_kept() -> None:
    rows = rows_of(("Do", body(1)), ("Do", body(1, 7)), ("Do", body(1, 3)), tests=[[], ["assert f()"], ["assert f()"]])
    divided, _, report = split_rows(rows, ALONE, DataLock(sources=[]))
    assert locations(divided["train"]) == ["file:1"]
    assert [(one.location, one.kept_location) for one in report.near_duplicate_list] == [
        ("file:0", "file:1"),
        ("file:2", "file:1"),
    ]


def test_equal_code_for_another_question_is_another_row() -> None:
    """Near-duplicates agree in both texts: one function answers several questions, and documentation is alike."""
    rows = rows_of(("Sort a list", body(1)), ("Find all the primes", body(1)))
    _, _, report = split_rows(rows, ALONE, DataLock(sources=[]))
    assert (report.duplicates, report.near_duplicates) == (0, 0)
    long = " ".join(f"word{i}" for i in range(200))
    rows = rows_of((long, "return a + b"), (long, "return a - b"))
    assert split_rows(rows, ALONE, DataLock(sources=[]))[2].near_duplicates == 0


def test_no_threshold_keeps_near_duplicates() -> None:
    rows = rows_of(("Do", body(1)), ("Do", body(1, 7)))
    splits = ALONE.model_copy(update={"near_duplicate_threshold": None})
    divided, removed, report = split_rows(rows, splits, DataLock(sources=[]))
    assert (len(divided["train"]), len(removed), report.near_duplicates) == (2, 0, 0)
    assert "not looked for" in report.html()


def test_a_chain_of_small_changes_is_not_one_cluster() -> None:
    """Each is like the next, the ends are not: every removed row is like the very row that is kept."""
    chain = [("Do", body(1, *range(i))) for i in range(12)]
    rows = rows_of(*chain)
    found = near_duplicates_of(rows, np.arange(len(rows)), 0.85)
    kept = set(range(12)) - set(found.removed.tolist())
    assert 1 < len(kept) < 12
    for row, leader, measured in zip(found.removed, found.kept, found.similarity, strict=True):
        assert leader in kept
        assert measured == pytest.approx(similarity(chain[row][1], chain[leader][1]))
        assert measured >= 0.85
    assert all(similarity(chain[a][1], chain[b][1]) < 0.85 for a in kept for b in kept if a < b)


def test_a_large_cluster_leaves_one_row() -> None:
    rows = rows_of(*(("Do", body(i % 3, i % 29)) for i in range(300)))
    found = near_duplicates_of(rows, np.arange(300), 0.85)
    assert len(found.removed) == 297
    assert set(found.kept.tolist()) == {0, 1, 2}


words = st.lists(st.sampled_from(["def", "x", "Ü", "名", "_a", "(", ")", "\n", "  ", "1", "é+", "\0"]), max_size=12)


@settings(max_examples=60)
@given(texts=st.lists(st.tuples(words.map(" ".join), words.map("".join)), min_size=2, max_size=6))
def test_similarity_is_the_share_of_common_word_pairs_of_the_less_similar_text(texts: list[tuple[str, str]]) -> None:
    rows = rows_of(*texts)
    pairs = np.array([(a, b) for a in range(len(texts)) for b in range(len(texts))])
    found = similarities_of(rows.select_columns(["instruction", "completion"]).with_format("arrow"), pairs)
    expected = [min(similarity(texts[a][field], texts[b][field]) for field in (0, 1)) for a, b in pairs]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 0.95, 1.0])
def test_hardly_any_pair_at_the_threshold_is_missed(threshold: float) -> None:
    bands, width = bands_of(threshold)
    assert bands * width <= PERMUTATIONS
    assert (1 - threshold**width) ** bands <= MISSED


def test_signatures_find_what_comparing_all_pairs_finds() -> None:
    texts = [body(kind, *range(changed)) for kind in range(60) for changed in (0, 2)]
    rows = rows_of(*(("Do", text) for text in texts))
    found = near_duplicates_of(rows, np.arange(len(rows)), 0.8)
    assert found.removed.tolist() == list(range(1, 120, 2))
    assert found.kept.tolist() == list(range(0, 120, 2))
