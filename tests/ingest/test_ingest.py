"""Ingestion reads what was locked, and sets unreadable rows aside or stops."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.errors import DataError
from steps.ingest.ingest import ingest_sources
from steps.resolve.data import lock_data
from steps.resolve.params import DataParameters
from steps.rows import QUARANTINE_FEATURES, ROW_FEATURES, row_id_of
from tests.ingest.ingested import GOOD, from_hub, ingested, jsonl


def test_files_and_packages_give_rows_of_one_shape(tmp_path: Path) -> None:
    files = jsonl(tmp_path / "rows.jsonl", GOOD)
    rows, unreadable, report = ingested({"files": files, "license": "CC0-1.0"}, {"package": "toolz"})
    assert rows.features == ROW_FEATURES
    assert unreadable.features == QUARANTINE_FEATURES
    assert rows[0] == {
        "row_id": row_id_of("Add", "a + b"),
        "source": files,
        "location": f"{files}:1",
        "group": rows[0]["group"],
        "license": "CC0-1.0",
        "instruction": "Add",
        "completion": "a + b",
        "tests": [],
        "preamble": "",
    }
    harvested = rows[1]
    assert harvested["location"] == harvested["group"]
    assert harvested["location"].startswith("toolz.")
    assert harvested["license"] == "BSD-3-Clause"
    assert [source.rows for source in report.sources] == [1, len(rows) - 1]
    assert report.metadata()["rows"] == len(rows)


def test_a_row_id_is_its_texts_alone() -> None:
    assert row_id_of("a", "b") == "59b271ae1bbcb1d3"  # printf 'a\0b' | sha256sum
    assert row_id_of("a", "b") != row_id_of("ab", "")


def test_a_hub_data_set_is_read_by_split(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "train.parquet")
    rows, _, report = from_hub(tmp_path)
    assert rows["location"][0] == f"{tmp_path}:train[0]"
    assert report.sources[0].state == "c" * 40


def test_a_hub_split_that_does_not_exist_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"sources\[0\]\.hub: .* split 'nope' cannot be loaded .*train") as caught:
        from_hub(tmp_path, split="nope")
    assert "\n" not in str(caught.value)


def test_a_hub_data_set_is_streamed_without_being_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    folder = tmp_path / "hub"
    folder.mkdir()
    jsonl(folder / "train.jsonl", GOOD, {"instruction": "Sub", "output": "a - b"})
    found = {}
    for streaming in (True, False):
        found[streaming], _, _ = from_hub(folder, streaming=streaming)
        assert any(cache.rglob("*.arrow")) is not streaming
    assert found[True].to_list() == found[False].to_list()
    assert len(found[True]) == 2


def test_a_stream_that_breaks_off_is_one_clear_line(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"instruction": "Add", "output": "a + b"}\n{"instruction": ')
    with pytest.raises(DataError, match=r"sources\[0\]\.hub: .* cannot be loaded") as caught:
        from_hub(folder, streaming=True)
    assert "\n" not in str(caught.value)


def test_rows_without_a_group_are_grouped_by_what_they_ask(tmp_path: Path) -> None:
    files = jsonl(
        tmp_path / "rows.jsonl",
        {"instruction": "Add  numbers", "output": "1"},
        {"instruction": "add numbers\n", "output": "2"},
        {"instruction": "Subtract", "output": "3"},
        {"instruction": "Subtract", "output": "4", "group": "mine"},
    )
    groups = list(ingested({"files": files})[0]["group"])
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == "mine"


@pytest.mark.parametrize("state", ["changed", "gone"])
def test_a_file_that_is_not_what_was_locked_is_refused(tmp_path: Path, state: str) -> None:
    path = tmp_path / "rows.jsonl"
    data = DataParameters.model_validate({"sources": [{"files": jsonl(path, GOOD)}]})
    lock = lock_data(data)
    if state == "gone":
        path.unlink()
    else:
        jsonl(path, GOOD, GOOD)
    with pytest.raises(DataError, match=rf"rows\.jsonl: {state} since the resolve step locked it; start the run again"):
        ingest_sources(data, lock)


def test_a_file_that_came_later_is_not_read(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", GOOD)
    data = DataParameters.model_validate({"sources": [{"files": f"{tmp_path}/*.jsonl"}]})
    lock = lock_data(data)
    jsonl(tmp_path / "b.jsonl", GOOD)
    assert len(ingest_sources(data, lock)[0]) == 1


def test_a_package_that_changed_since_it_was_locked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "shifting.py"
    module.write_text('def f():\n    """Doc."""\n    return 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    data = DataParameters.model_validate({"sources": [{"package": "shifting"}]})
    lock = lock_data(data)
    assert ingest_sources(data, lock)[0]["license"][0] == ""
    module.write_text('def f():\n    """Doc."""\n    return 2\n')
    with pytest.raises(DataError, match=r"shifting\.py: changed since"):
        ingest_sources(data, lock)


def test_a_package_without_documented_functions_has_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "silent.py").write_text("def f():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=r"sources\[0\]: 'silent' has no rows"):
        ingested({"package": "silent"})


def test_a_problem_number_is_group_and_stands_in_the_location(tmp_path: Path) -> None:
    files = jsonl(tmp_path / "rows.jsonl", {"text": "Add", "code": "a + b", "task_id": 7})
    row = ingested({"files": files})[0][0]
    assert (row["group"], row["location"]) == ("7", f"{files}:1 (task_id 7)")


def test_blank_lines_are_counted_and_are_no_rows(tmp_path: Path) -> None:
    files = jsonl(tmp_path / "rows.jsonl", "", GOOD, "  \t", "{", GOOD)
    table = tmp_path / "rows.csv"
    table.write_text("\nprompt,code\n\np,c\n\n")
    _, _, report = ingested({"files": files}, {"files": str(table)}, max_bad_share=0.5)
    flow = [(source.records, source.blank, source.unreadable, source.rows) for source in report.sources]
    assert flow == [(5, 2, 1, 2), (4, 3, 0, 1)]
    assert report.blank == 5
    assert "blank lines" in report.html()


@pytest.mark.parametrize(
    ("stated", "of_source", "expected"), [("MIT", "CC0-1.0", "MIT"), ("", "CC0-1.0", "CC0-1.0"), (None, "", "")]
)
def test_a_row_s_own_licence_comes_first(tmp_path: Path, stated: object, of_source: str, expected: str) -> None:
    files = jsonl(tmp_path / "rows.jsonl", GOOD | {"license": stated})
    rows, _, report = ingested({"files": files, "license": of_source})
    assert rows["license"][0] == expected
    assert report.sources[0].licenses == {expected: 1}


def test_a_source_s_licence_comes_before_the_package_s() -> None:
    assert set(ingested({"package": "toolz", "license": "MIT"})[0]["license"]) == {"MIT"}


def test_the_quickstarts_packages_have_no_unreadable_row() -> None:
    """Their doctests may hold control characters: one checks that escape sequences are removed."""
    rows, unreadable, report = ingested(*({"package": name} for name in ("boltons", "more_itertools", "toolz")))
    assert (len(unreadable), report.unreadable) == (0, 0)
    assert len(rows) > 350
    assert any("\x1b" in test for row in rows for test in row["tests"])
