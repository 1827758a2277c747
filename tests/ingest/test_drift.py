"""What is new, gone and changed between two runs' rows."""

from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from steps.ingest.drift import compare_rows
from steps.rows import PREVIOUS_FEATURES, table_of


def rows(*texts: tuple[str, str]) -> Dataset:
    """Rows of (group, text), each at the location of its place in the list."""
    described = (
        {"row_id": f"{group}/{text}", "group": group, "location": str(place)}
        for place, (group, text) in enumerate(texts)
    )
    return table_of(described, PREVIOUS_FEATURES)


def test_each_kind_is_counted_and_named() -> None:
    before = rows(("stays", "1"), ("goes", "1"), ("edited", "old"))
    now = rows(("comes", "1"), ("stays", "1"), ("edited", "new"))
    drift = compare_rows(now, before)
    assert (drift.previous_rows, drift.unchanged, drift.new, drift.gone, drift.changed) == (3, 1, 1, 1, 1)
    assert (drift.new_examples, drift.gone_examples, drift.changed_examples) == (["0"], ["1"], ["2"])


def test_a_row_that_moved_within_its_file_is_unchanged() -> None:
    drift = compare_rows(rows(("b", "1"), ("a", "1")), rows(("a", "1"), ("b", "1")))
    assert (drift.unchanged, drift.new, drift.gone, drift.changed) == (2, 0, 0, 0)


pairs = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123")), unique=True)


@given(pairs, pairs)
def test_every_row_is_of_one_kind(now: list[tuple[str, str]], before: list[tuple[str, str]]) -> None:
    drift = compare_rows(rows(*now), rows(*before))
    assert drift.unchanged + drift.new + drift.changed == len(now)
    assert drift.unchanged == len(set(now) & set(before))
    assert drift.gone <= len(before) - drift.unchanged
