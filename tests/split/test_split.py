"""A row's side is its group's, for ever; nothing is on two sides."""

from collections.abc import Container

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from steps.errors import DataError
from steps.resolve.locks import DataLock
from steps.rows import ROW_FEATURES
from steps.split.assign import SIDES, bounds_of, sides_at, unit_hash
from steps.split.params import ContaminationParameters, SplitParameters
from steps.split.report import SplitReport
from steps.split.split import split_rows
from tests.rows import rows_of


def grouped(*rows: tuple[str, str], untested: Container[int] = ()) -> Dataset:
    """Rows with these groups and completions, each with a test unless it is ``untested``."""
    tests = [[] if i in untested else ["assert f()"] for i in range(len(rows))]
    texts = [("Do it", completion) for _, completion in rows]
    return rows_of(*texts, group=[group for group, _ in rows], tests=tests)


def divide(rows: Dataset, splits: SplitParameters) -> tuple[DatasetDict, SplitReport]:
    """The splits and the report, compared with the run's own test rows alone."""
    divided, removed, report = split_rows(rows, splits, DataLock(sources=[]))
    assert len(removed) == report.duplicates + report.near_duplicates + report.contaminated_removed
    assert report.rows == len(removed) + report.unused + sum(side.rows for side in report.sides)
    return divided, report


def many(count: int) -> list[tuple[str, str]]:
    """``count`` rows, three to a group."""
    return [(f"group {i // 3}", f"f({i})") for i in range(count)]


def sides(divided: DatasetDict) -> dict[str, str]:
    """The side of every row by its id."""
    return {row_id: side for side in SIDES for row_id in divided[side]["row_id"]}


def test_every_row_is_on_one_side_and_groups_stay_together() -> None:
    divided, report = divide(grouped(*many(600)), SplitParameters(validation=0.2, test=0.2))
    assert list(divided) == list(SIDES)
    assert all(divided[side].features == ROW_FEATURES for side in SIDES)
    assert sum(len(divided[side]) for side in SIDES) == len(sides(divided)) == 600
    groups = [set(divided[side]["group"]) for side in SIDES]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]
    assert report.metadata() == {
        "rows": 600,
        "duplicates": 0,
        "near_duplicates": 0,
        "unused": 0,
        "contaminated": 0,
        "contaminated_removed": 0,
        **{f"{side}_rows": len(divided[side]) for side in SIDES},
    }


def test_shares_are_met_by_many_groups() -> None:
    splits = SplitParameters(validation=0.1, test=0.3)
    bounds = bounds_of(splits, [])
    places = np.array([unit_hash(splits.seed, f"group {i}") for i in range(20_000)])
    _, validation, test = np.bincount(sides_at(places, bounds))
    assert test == pytest.approx(6000, rel=0.05)
    assert validation == pytest.approx(2000, rel=0.08)


def test_the_assignment_never_changes_between_versions_of_this_project() -> None:
    """A test row that moved into training would spoil every comparison with an earlier model."""
    assert unit_hash(42, "toolz.itertoolz.first") == 0.7941890031938255


@settings(max_examples=40)
@given(
    old=st.sets(st.integers(0, 400), min_size=30),
    new=st.sets(st.integers(0, 400)),
    seed=st.integers(0, 3),
    front=st.booleans(),
)
def test_new_rows_never_move_an_old_one(old: set[int], new: set[int], seed: int, front: bool) -> None:
    splits = SplitParameters(validation=0.3, test=0.3, seed=seed)
    before = [(f"group {i % 50}", f"f({i})") for i in sorted(old)]
    added = [(f"group {i % 50}", f"f({i})") for i in sorted(new - old)]
    first = sides(divide(grouped(*before), splits)[0])
    second = sides(divide(grouped(*([*added, *before] if front else [*before, *added])), splits)[0])
    assert first.items() <= second.items()
    assert len(second) == len(old | new)


def test_another_seed_gives_another_split() -> None:
    rows = grouped(*many(300))
    assert sides(divide(rows, SplitParameters(seed=1))[0]) != sides(divide(rows, SplitParameters(seed=2))[0])


def test_copies_apart_from_spaces_and_case_are_removed() -> None:
    rows = grouped(("a", "Return  x"), ("b", "return x\n"), ("c", "return y"))
    divided, report = divide(rows, SplitParameters(validation=0, test=0))
    assert list(divided["train"]["completion"]) == ["Return  x", "return y"]
    assert report.duplicates == 1
    assert [(pair.location, pair.same_as) for pair in report.duplicate_examples] == [("file:1", "file:0")]
    assert "file:1" in report.html()


def test_max_rows_takes_the_same_rows_whatever_their_order() -> None:
    splits = SplitParameters(validation=0.3, test=0.3, max_rows=50)
    rows = many(300)
    divided, report = divide(grouped(*rows), splits)
    assert report.unused == 250
    assert len(sides(divided)) == 50
    assert sides(divide(grouped(*reversed(rows)), splits)[0]) == sides(divided)
    everything = sides(divide(grouped(*rows), splits.model_copy(update={"max_rows": None}))[0])
    assert sides(divided).items() <= everything.items()


def test_more_rows_than_there_are_takes_all() -> None:
    _, report = divide(grouped(*many(30)), SplitParameters(validation=0, test=0, max_rows=100))
    assert report.unused == 0


def test_a_share_of_zero_gives_an_empty_side_with_its_columns() -> None:
    divided, report = divide(grouped(*many(30)), SplitParameters(validation=0, test=0))
    assert len(divided["train"]) == 30
    for side in ("validation", "test"):
        assert len(divided[side]) == 0
        assert divided[side].features == ROW_FEATURES
    assert "Split: train" in report.html()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            SplitParameters(validation=0, test=0.01),
            r"split 'test' is empty: 3 rows in 1 groups are too few .* 0\.01; raise parameters\.splits\.test",
        ),
        (
            SplitParameters(validation=0.01, test=0),
            r"split 'validation' is empty: .*raise parameters\.splits\.validation",
        ),
        (
            SplitParameters(validation=0, test=0.99),
            r"split 'train' is empty: .*lower parameters\.splits\.validation or parameters\.splits\.test",
        ),
    ],
)
def test_an_empty_side_says_what_to_change(splits: SplitParameters, message: str) -> None:
    with pytest.raises(DataError, match=message):
        divide(grouped(*many(3)), splits)


@pytest.mark.parametrize(("validation", "test"), [(20, 30), (0.1, 30), (20, 0.1)])
def test_a_count_is_reached_and_passed_by_less_than_a_group(validation: float, test: float) -> None:
    divided, report = divide(grouped(*many(600)), SplitParameters(validation=validation, test=test))
    for side, asked in (("validation", validation), ("test", test)):
        if asked >= 1:
            assert asked <= len(divided[side]) < asked + 3
        else:
            assert 0 < len(divided[side]) < 120
    assert report.sides[0].asked is None
    assert "the rest" in report.html()


@pytest.mark.parametrize(("validation", "test"), [(20, 30), (0.1, 30), (20, 0.1), (1, 0), (0, 1)])
def test_counts_are_reached_whatever_the_order_of_the_groups(validation: float, test: float) -> None:
    splits = SplitParameters(validation=validation, test=test)
    groups = [(unit_hash(0, str(group)), 2) for group in range(300)]
    bounds = bounds_of(splits, groups)
    assert bounds == bounds_of(splits, sorted(groups))
    _, *found = np.bincount(sides_at(np.array([place for place, _ in groups]), bounds), minlength=3)
    for asked, groups_of_two in zip((validation, test), found, strict=True):
        assert asked < 1 or asked <= 2 * groups_of_two < asked + 2


def test_a_side_begins_at_its_bound() -> None:
    numbers = sides_at(np.array([0, 0.25, 0.5]), (0.25, 0.5))
    assert [SIDES[number] for number in numbers] == ["test", "validation", "train"]


@settings(max_examples=200)
@given(
    old=st.dictionaries(st.integers(0, 99), st.integers(1, 5), min_size=1),
    new=st.dictionaries(st.integers(0, 99), st.integers(1, 5)),
    validation=st.sampled_from([0, 0.2, 1, 8, 15, 400]),
    test=st.sampled_from([0, 0.1, 1, 8, 15, 400]),
)
def test_with_counts_new_rows_move_old_ones_away_from_test_alone(
    old: dict[int, int], new: dict[int, int], validation: float, test: float
) -> None:
    """Keys are groups, values how many rows each has, or gets."""
    splits = SplitParameters(validation=validation, test=test)
    places = np.array([unit_hash(splits.seed, str(group)) for group in range(100)])
    first = bounds_of(splits, ((places[group], rows) for group, rows in old.items()))
    grown = {group: old.get(group, 0) + new.get(group, 0) for group in old | new}
    second = bounds_of(splits, ((places[group], rows) for group, rows in grown.items()))
    ours = places[list(old)]
    assert all(sides_at(ours, second) <= sides_at(ours, first)), "2 is test, 0 is train"


def test_a_count_of_all_rows_leaves_nothing_to_train_on() -> None:
    with pytest.raises(DataError, match=r"split 'train' is empty: 30 rows in 10 groups are too few; lower"):
        divide(grouped(*many(30)), SplitParameters(validation=0, test=30))


@pytest.mark.parametrize("values", [{"test": 1.5}, {"validation": -1}, {"test": 0.6, "validation": 0.4}])
def test_what_is_neither_share_nor_count_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SplitParameters.model_validate(values)


def distinct_body(kind: int) -> str:
    """Forty lines that no other kind has."""
    return "".join(f"v{kind}_{i} = {i}\n" for i in range(40))


@settings(max_examples=40)
@given(
    bodies=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.booleans()), min_size=12, max_size=60),
    cut=st.integers(1, 60),
)
def test_growth_with_near_duplicates_never_moves_a_row_to_test(bodies: list[tuple[int, int, bool]], cut: int) -> None:
    def rows(some: list[tuple[int, int, bool]]) -> Dataset:
        texts = [(f"group {kind}", f"{distinct_body(kind)}# {variant}") for kind, variant, _ in some]
        return grouped(*texts, untested=[i for i, (_, _, tested) in enumerate(some) if not tested])

    splits = SplitParameters(validation=0, test=0.4, contamination=ContaminationParameters(remove=False))
    try:
        first = sides(divide(rows(bodies[:cut]), splits)[0])
        second = sides(divide(rows(bodies), splits)[0])
    except DataError:  # too few groups for one of the sides
        return
    assert not [row_id for row_id, side in first.items() if side == "train" and second.get(row_id) == "test"]
