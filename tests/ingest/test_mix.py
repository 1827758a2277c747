"""Weights make the largest mix in which no row is repeated, and growth of a source changes little of it."""

from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from steps.errors import DataError
from steps.ingest.mix import shares_of, smallest
from steps.ingest.report import IngestReport
from steps.resolve.params import DataParameters
from tests.ingest.ingested import ingested, jsonl
from tests.rows import rows_of


def _ingest(folder: Path, counts: dict[str, int], weights: list[float]) -> tuple[Dataset, IngestReport]:
    sources = []
    for (name, count), weight in zip(counts.items(), weights, strict=True):
        rows = [{"prompt": f"{name} {i}", "code": f"f({i})"} for i in range(count)]
        sources.append({"files": jsonl(folder / f"{name}.jsonl", *rows), "weight": weight})
    mixed, _, report = ingested(*sources)
    return mixed, report


@pytest.mark.parametrize(
    ("counts", "weights", "expected"),
    [
        ([100, 100], [1, 1], [100, 100]),
        ([100, 50], [1, 1], [50, 50]),
        ([100, 50], [3, 1], [100, 33]),
        ([100, 50], [0.1, 0.3], [16, 50]),
        ([10, 10], [1, 1000], [0, 10]),
        ([7], [0.3], [7]),
    ],
)
def test_shares_follow_the_weights(counts: list[int], weights: list[float], expected: list[int]) -> None:
    assert shares_of(counts, weights) == expected


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(1e-3, 1e3)), min_size=1, max_size=5))
def test_a_mix_is_as_large_as_it_can_be_and_repeats_nothing(sources: list[tuple[int, float]]) -> None:
    counts, weights = [count for count, _ in sources], [weight for _, weight in sources]
    shares = shares_of(counts, weights)
    assert all(0 <= share <= count for share, count in zip(shares, counts, strict=True))
    assert any(share == count for share, count in zip(shares, counts, strict=True))
    per_weight = [share / weight for share, weight in zip(shares, weights, strict=True)]
    assert all(max(per_weight) - found <= 1 / weight + 1e-6 for found, weight in zip(per_weight, weights, strict=True))


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows, report = _ingest(tmp_path, {"large": 90, "small": 20}, [2, 1])
    assert [source.rows for source in report.sources] == [40, 20]
    assert [source.left_out_by_weight for source in report.sources] == [50, 0]
    assert (report.rows, report.left_out_by_weight, len(rows)) == (60, 50, 60)
    assert "40" in report.html()
    assert len(set(rows["row_id"])) == 60


def test_rows_keep_their_order(tmp_path: Path) -> None:
    rows, _ = _ingest(tmp_path, {"large": 2500, "small": 1200}, [1, 1])
    numbers = [int(text.split()[1]) for text in rows["instruction"] if text.startswith("large")]
    assert len(numbers) == 1200
    assert numbers == sorted(numbers)


def test_a_source_that_grows_moves_few_rows(tmp_path: Path) -> None:
    before = set(_ingest(tmp_path, {"large": 200, "small": 50}, [1, 1])[0]["row_id"])
    after = set(_ingest(tmp_path, {"large": 220, "small": 50}, [1, 1])[0]["row_id"])
    new = {f"large {i}" for i in range(200, 220)}
    rows = _ingest(tmp_path, {"large": 220, "small": 50}, [1, 1])[0]
    arrived = sum(text in new for text in rows["instruction"])
    assert len(after - before) == len(before - after) == arrived < 20


def test_a_weight_that_leaves_no_row_is_refused(tmp_path: Path) -> None:
    message = r"sources\[0\]\.weight: leaves no row of '.*large\.jsonl'; raise it"
    with pytest.raises(DataError, match=message):
        _ingest(tmp_path, {"large": 10, "small": 10}, [1, 1000])


def test_the_smallest_row_ids_are_kept_once_each() -> None:
    rows = rows_of(*[("x", "x")] * 4, row_id=["c", "a", "b", "a"])
    assert smallest(rows, 3)["row_id"][:] == ["a", "b", "a"]
    assert smallest(rows, 1)["row_id"][:] == ["a"]
    assert smallest(rows, 4) is rows


@pytest.mark.parametrize("weights", [(1, None), (None, 1), (1, 2, None)])
def test_weights_are_given_to_all_sources_or_to_none(weights: tuple[float | None, ...]) -> None:
    sources = [{"package": "toolz", "weight": weight} for weight in weights]
    with pytest.raises(ValueError, match=r"sources\[\d\] has no weight and others have one; give all a weight or none"):
        DataParameters.model_validate({"sources": sources})


@pytest.mark.parametrize("weight", [0, -1, True, "much"])
def test_a_weight_is_a_number_above_0(weight: object) -> None:
    with pytest.raises(ValueError, match="weight"):
        DataParameters.model_validate({"sources": [{"package": "toolz", "weight": weight}]})
