"""Ingestion reads what was locked, and sets unreadable rows aside or stops."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from steps.errors import DataError
from steps.ingest.ingest import ingest_sources
from steps.ingest.report import IngestReport
from steps.resolve.data import lock_data
from steps.resolve.locks import DataLock, LockedSource
from steps.resolve.params import DataParameters, Source
from steps.rows import QUARANTINE_FEATURES, ROW_FEATURES, row_id_of

GOOD = {"instruction": "Add", "output": "a + b"}


def _ingest(*sources: dict[str, object], max_bad_share: float = 0.0) -> tuple[Dataset, Dataset, IngestReport]:
    data = DataParameters.model_validate({"sources": sources, "max_bad_share": max_bad_share})
    return ingest_sources(data, lock_data(data))


def _jsonl(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


def test_files_and_packages_give_rows_of_one_shape(tmp_path: Path) -> None:
    files = _jsonl(tmp_path / "rows.jsonl", GOOD)
    rows, unreadable, report = _ingest({"files": files, "license": "CC0-1.0"}, {"package": "toolz"})
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
    """A folder takes the place of the hub: the same loader, without a network."""
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "train.parquet")
    data = DataParameters.model_validate({"sources": [{"hub": str(tmp_path)}]})
    rows, _, report = ingest_sources(data, DataLock(sources=[LockedSource(name=str(tmp_path), commit="c" * 40)]))
    assert rows["location"][0] == f"{tmp_path}:train[0]"
    assert report.sources[0].state == "c" * 40


def test_a_hub_split_that_does_not_exist_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "train.parquet")
    data = DataParameters.model_validate({"sources": [{"hub": str(tmp_path), "split": "nope"}]})
    with pytest.raises(DataError, match=r"sources\[0\]\.hub: .* split 'nope' cannot be loaded .*train") as caught:
        ingest_sources(data, DataLock(sources=[LockedSource(name=str(tmp_path), commit="c" * 40)]))
    assert "\n" not in str(caught.value)


def test_a_hub_data_set_is_streamed_without_being_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    folder = tmp_path / "hub"
    folder.mkdir()
    _jsonl(folder / "train.jsonl", GOOD, {"instruction": "Sub", "output": "a - b"})
    lock = DataLock(sources=[LockedSource(name=str(folder), commit="c" * 40)])
    found = {}
    for streaming in (True, False):
        source = {"hub": str(folder), "streaming": streaming}
        found[streaming], _, _ = ingest_sources(DataParameters.model_validate({"sources": [source]}), lock)
        assert any(cache.rglob("*.arrow")) is not streaming
    assert found[True].to_list() == found[False].to_list()
    assert len(found[True]) == 2


def test_a_stream_that_breaks_off_is_one_clear_line(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"instruction": "Add", "output": "a + b"}\n{"instruction": ')
    data = DataParameters.model_validate({"sources": [{"hub": str(folder), "streaming": True}]})
    with pytest.raises(DataError, match=r"sources\[0\]\.hub: .* cannot be loaded") as caught:
        ingest_sources(data, DataLock(sources=[LockedSource(name=str(folder), commit="c" * 40)]))
    assert "\n" not in str(caught.value)


def test_rows_without_a_group_are_grouped_by_what_they_ask(tmp_path: Path) -> None:
    files = _jsonl(
        tmp_path / "rows.jsonl",
        {"instruction": "Add  numbers", "output": "1"},
        {"instruction": "add numbers\n", "output": "2"},
        {"instruction": "Subtract", "output": "3"},
        {"instruction": "Subtract", "output": "4", "group": "mine"},
    )
    groups = list(_ingest({"files": files})[0]["group"])
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == "mine"


def test_unreadable_rows_are_set_aside_with_place_and_reason(tmp_path: Path) -> None:
    files = _jsonl(
        tmp_path / "rows.jsonl", GOOD, '{"instruction": "cut', "[1]", {"instruction": "\ud800", "output": "x"}
    )
    rows, unreadable, report = _ingest({"files": files}, max_bad_share=0.75)
    assert len(rows) == 1
    assert [(row["location"], row["reasons"][0].split(":")[0]) for row in unreadable] == [
        (f"{files}:2", "not valid JSON"),
        (f"{files}:3", "not a JSON object but a list"),
        (
            f"{files}:4",
            "column 'instruction' holds half a surrogate pair (U+D800), which is not valid Unicode, as its character 1",
        ),
    ]
    assert report.unreadable == 3
    assert "not valid JSON" in report.html()


def test_one_unreadable_row_stops_the_run_by_default(tmp_path: Path) -> None:
    files = _jsonl(tmp_path / "rows.jsonl", GOOD, {"instruction": 3, "output": "x"})
    message = r"rows\.jsonl:2: column 'instruction' .*1 of 2 rows .* \(50\.0%\).*parameters\.data\.max_bad_share"
    with pytest.raises(DataError, match=message):
        _ingest({"files": files})


def test_many_unreadable_rows_are_named_in_part(tmp_path: Path) -> None:
    files = _jsonl(tmp_path / "rows.jsonl", GOOD, *["{"] * 5)
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*:3: .*:4: .* and 2 more: 5 of 6 rows") as caught:
        _ingest({"files": files}, max_bad_share=0.5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", r"sources\[0\]: '.*a\.jsonl' has no rows"),
        ("a.jsonl", b"{}\n{}\n", r"a\.jsonl:1: no instruction"),
        ("a.jsonl", b'{"prompt": "p", "code": "\xff"}\n', r"a\.jsonl:1: not UTF-8 \(byte 0xff\)"),
        ("a.jsonl", b"[" * 100_000 + b"\n", r"a\.jsonl:1: not readable JSON"),
        ("a.json", b'{"prompt": "p"}', r"a\.json: holds a dict, not a list"),
        (
            "a.json",
            b'{"prompt": "p"}\n{"prompt": "p"}',
            r"a\.json:2: not valid JSON: Extra data; .* named \.jsonl",
        ),
        ("a.json", b'[{"prompt": "p",}]', r"a\.json:1: not valid JSON: .*; mend or remove the file"),
        ("a.json", b"\xff", r"a\.json: not UTF-8"),
        ("a.json", b"[]", r"sources\[0\]: '.*a\.json' has no rows"),
        ("a.csv", b"", r"sources\[0\]: '.*a\.csv' has no rows"),
        ("a.csv", b"prompt,code\n", r"sources\[0\]: '.*a\.csv' has no rows"),
        ("a.csv", b"prompt,code\np\n", r"a\.csv:2: 1 cells under a header of 2"),
        ("a.csv", b"prompt,code\np,c,x\n", r"a\.csv:2: 3 cells under a header of 2"),
        ("a.csv", b'prompt,code\np,"open\nq,r\n', r"a\.csv:2: not valid CSV: unexpected end of data"),
        ("a.csv", b"prompt,code\np,\xff\n", r"a\.csv:2: not UTF-8 \(byte 0xff\)"),
        ("a.csv", b"prompt,code\n,c\n", r"a\.csv:2: no instruction"),
        ("a.parquet", b"not parquet at all", r"a\.parquet: not readable as Parquet"),
        ("a.parquet", b"", r"a\.parquet: not readable as Parquet"),
        ("a.csv", b'prompt,code\n"p"x,c\n', r"a\.csv:2: not valid CSV: ',' expected after '\"'"),
        ("a.csv", b'"prompt"x,code\n', r"a\.csv:1: not valid CSV: .* in the header; mend the file"),
        ("a.tsv", b"prompt\tcode\np,c\n", r"a\.tsv:2: 1 cells under a header of 2"),
        ("a.json", b"[" * 100_000, r"a\.json: not readable JSON"),
        ("a.jsonl.gz", b'{"prompt": "p", "code": "c"}\n', r"a\.jsonl\.gz: not readable as gzip: Not a gzipped file"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"prompt": "p"}' * 99, mtime=0)[:-12],
            r"a\.jsonl\.gz: not readable as gzip: .* end",
        ),
        ("a.csv.gz", gzip.compress(b"prompt,code\np\n", mtime=0), r"a\.csv\.gz:2: 1 cells"),
        ("a.parquet.gz", gzip.compress(b"", mtime=0), r"a\.parquet\.gz: not one of .*convert it"),
        ("a.gz", gzip.compress(b"", mtime=0), r"a\.gz: not one of"),
        ("a.txt", b"text", r"a\.txt: not one of \.jsonl, \.json, \.csv, \.tsv, \.parquet"),
        (
            "a.jsonl",
            b'{"question": "q", "reply": "r"}\n',
            r"no column for the completion .* it has: question, reply",
        ),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        _ingest({"files": str(tmp_path / name)})
    assert "\n" not in str(caught.value)


def test_a_parquet_file_with_a_damaged_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt": f"p{i}" * 50, "code": "c" * i} for i in range(500)]), path)
    content = bytearray(path.read_bytes())
    content[100:400] = b"\xff" * 300
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: not readable as Parquet"):
        _ingest({"files": str(path)})


@pytest.mark.parametrize("state", ["changed", "gone"])
def test_a_file_that_is_not_what_was_locked_is_refused(tmp_path: Path, state: str) -> None:
    path = tmp_path / "rows.jsonl"
    data = DataParameters.model_validate({"sources": [{"files": _jsonl(path, GOOD)}]})
    lock = lock_data(data)
    if state == "gone":
        path.unlink()
    else:
        _jsonl(path, GOOD, GOOD)
    with pytest.raises(DataError, match=rf"rows\.jsonl: {state} since the resolve step locked it; start the run again"):
        ingest_sources(data, lock)


def test_a_file_that_came_later_is_not_read(tmp_path: Path) -> None:
    _jsonl(tmp_path / "a.jsonl", GOOD)
    data = DataParameters.model_validate({"sources": [{"files": f"{tmp_path}/*.jsonl"}]})
    lock = lock_data(data)
    _jsonl(tmp_path / "b.jsonl", GOOD)
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
        _ingest({"package": "silent"})


def test_a_problem_number_is_group_and_stands_in_the_location(tmp_path: Path) -> None:
    files = _jsonl(tmp_path / "rows.jsonl", {"text": "Add", "code": "a + b", "task_id": 7})
    row = _ingest({"files": files})[0][0]
    assert (row["group"], row["location"]) == ("7", f"{files}:1 (task_id 7)")


def test_what_an_unreadable_record_holds_is_kept(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Why?"}]}
    chats = _jsonl(tmp_path / "chats.jsonl", chat)
    files = _jsonl(tmp_path / "rows.jsonl", {"instruction": ["a\ud800"], "output": "x"}, "{broken", "[1]", GOOD)
    unreadable = _ingest({"files": files}, max_bad_share=1)[1]
    assert [(row["instruction"], row["completion"]) for row in unreadable] == [
        ("['a\\ud800']", "x"),
        ("{broken", ""),
        ("[1]", ""),
    ]
    with pytest.raises(DataError, match="has no rows"):
        _ingest({"files": chats}, max_bad_share=1)


def test_blank_lines_are_counted_and_are_no_rows(tmp_path: Path) -> None:
    files = _jsonl(tmp_path / "rows.jsonl", "", GOOD, "  \t", "{", GOOD)
    table = tmp_path / "rows.csv"
    table.write_text("\nprompt,code\n\np,c\n\n")
    _, _, report = _ingest({"files": files}, {"files": str(table)}, max_bad_share=0.5)
    flow = [(source.records, source.blank, source.unreadable, source.rows) for source in report.sources]
    assert flow == [(5, 2, 1, 2), (4, 3, 0, 1)]
    assert report.blank == 5
    assert "blank lines" in report.html()


@pytest.mark.parametrize(
    ("stated", "of_source", "expected"), [("MIT", "CC0-1.0", "MIT"), ("", "CC0-1.0", "CC0-1.0"), (None, "", "")]
)
def test_a_row_s_own_licence_comes_first(tmp_path: Path, stated: object, of_source: str, expected: str) -> None:
    files = _jsonl(tmp_path / "rows.jsonl", GOOD | {"license": stated})
    rows, _, report = _ingest({"files": files, "license": of_source})
    assert rows["license"][0] == expected
    assert report.sources[0].licenses == {expected: 1}


def test_a_source_s_licence_comes_before_the_package_s() -> None:
    assert set(_ingest({"package": "toolz", "license": "MIT"})[0]["license"]) == {"MIT"}


def test_parquet_of_any_type_is_read_or_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    odd = {
        "when": pa.array([10**18, None], pa.timestamp("ns")),
        "nested": pa.array([{"a": [1.5]}, None]),
        "nothing": pa.nulls(2),
        "task_id": pa.array([3, 4], pa.uint8()),
        "test_list": pa.array([["assert True"], None]),
    }
    texts = {"prompt": pa.array(["p", "q"]).dictionary_encode(), "code": pa.array(["c", None], pa.large_string())}
    pq.write_table(pa.table(texts | odd), path)
    rows, unreadable, _ = _ingest({"files": str(path)}, max_bad_share=0.5)
    assert (rows[0]["instruction"], rows[0]["tests"], rows[0]["group"]) == ("p", ["assert True"], "3")
    assert unreadable[0]["reasons"] == ["no completion: column 'code' is null"]


@pytest.mark.parametrize("values", [pa.array([b"c"]), pa.array([["c"]]), pa.array([{"a": "c"}]), pa.array([1.5])])
def test_parquet_of_another_type_than_text_is_set_aside(tmp_path: Path, values: pa.Array) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["p"], "code": values}), path)
    with pytest.raises(DataError, match=r"rows\.parquet\[0\]: column 'code' holds a value of type \w+, not text"):
        _ingest({"files": str(path)})


def test_a_parquet_date_that_python_cannot_hold_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    dates = pa.array([2**61], pa.timestamp("ms"))
    pq.write_table(pa.table({"prompt": ["p"], "code": ["c"], "when": dates}), path)
    with pytest.raises(DataError, match=r"rows\.parquet: not readable as Parquet: ") as caught:
        _ingest({"files": str(path)})
    assert "\n" not in str(caught.value)


def test_the_quickstarts_packages_have_no_unreadable_row() -> None:
    """Their doctests may hold control characters: one checks that escape sequences are removed."""
    packages = ("boltons", "more_itertools", "toolz")
    data = DataParameters(sources=tuple(Source(package=name) for name in packages))
    rows, unreadable, report = ingest_sources(data, lock_data(data))
    assert (len(unreadable), report.unreadable) == (0, 0)
    assert len(rows) > 350
    assert any("\x1b" in test for row in rows for test in row["tests"])
