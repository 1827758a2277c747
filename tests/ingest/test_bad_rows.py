"""Rows and files that cannot be read are set aside, or stop the run with one clear line."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.errors import DataError
from tests.ingest.ingested import GOOD, ingested, jsonl


def test_unreadable_rows_are_set_aside_with_place_and_reason(tmp_path: Path) -> None:
    files = jsonl(
        tmp_path / "rows.jsonl", GOOD, '{"instruction": "cut', "[1]", {"instruction": "\ud800", "output": "x"}
    )
    rows, unreadable, report = ingested({"files": files}, max_bad_share=0.75)
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
    files = jsonl(tmp_path / "rows.jsonl", GOOD, {"instruction": 3, "output": "x"})
    message = r"rows\.jsonl:2: column 'instruction' .*1 of 2 rows .* \(50\.0%\).*parameters\.data\.max_bad_share"
    with pytest.raises(DataError, match=message):
        ingested({"files": files})


def test_many_unreadable_rows_are_named_in_part(tmp_path: Path) -> None:
    files = jsonl(tmp_path / "rows.jsonl", GOOD, *["{"] * 5)
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*:3: .*:4: .* and 2 more: 5 of 6 rows") as caught:
        ingested({"files": files}, max_bad_share=0.5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", r"sources\[0\]: '.*a\.jsonl' has no rows"),
        ("a.jsonl", b"{}\n{}\n", r"a\.jsonl:1: no instruction"),
        ("a.jsonl", b'{"prompt": "p", "code": "\xff"}\n', r"a\.jsonl:1: not UTF-8 \(byte 0xff\)"),
        ("a.jsonl", b"[" * 100_000 + b"\n", r"a\.jsonl:1: not readable JSON"),
        ("a.json", b'{"prompt": "p"}', r"a\.json: holds a dict, not a list"),
        ("a.json", b'{"prompt": "p"}\n{"prompt": "p"}', r"a\.json:2: not valid JSON: Extra data; .* named \.jsonl"),
        ("a.json", b'[{"prompt": "p",}]', r"a\.json:1: not valid JSON: .*; mend or remove the file"),
        ("a.json", b"\xff", r"a\.json: not UTF-8"),
        ("a.json", b"[]", r"sources\[0\]: '.*a\.json' has no rows"),
        ("a.csv", b"", r"sources\[0\]: '.*a\.csv' has no rows"),
        ("a.csv", b"prompt,code\n", r"sources\[0\]: '.*a\.csv' has no rows"),
        ("a.csv", b"prompt,code\np\n", r"a\.csv:2: 1 cells under a header of 2"),
        ("a.csv", b"prompt,code\np,c,x\n", r"a\.csv:2: 3 cells under a header of 2"),
        ("a.csv", b'prompt,code\np,"open\nq,r\n', r"a\.csv:2: not valid CSV: unexpected end of data"),
        ("a.csv", b"prompt,code\n,c\n", r"a\.csv:2: no instruction"),
        ("a.parquet", b"not parquet at all", r"a\.parquet: not readable as Parquet"),
        ("a.parquet", b"", r"a\.parquet: not readable as Parquet"),
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
        ("a.jsonl", b'{"question": "q", "reply": "r"}\n', r"no column for the completion .* it has: question, reply"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        ingested({"files": str(tmp_path / name)})
    assert "\n" not in str(caught.value)


def test_a_parquet_file_with_a_damaged_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt": f"p{i}" * 50, "code": "c" * i} for i in range(500)]), path)
    content = bytearray(path.read_bytes())
    content[100:400] = b"\xff" * 300
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: not readable as Parquet"):
        ingested({"files": str(path)})


def test_what_an_unreadable_record_holds_is_kept(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Why?"}]}
    chats = jsonl(tmp_path / "chats.jsonl", chat)
    files = jsonl(tmp_path / "rows.jsonl", {"instruction": ["a\ud800"], "output": "x"}, "{broken", "[1]", GOOD)
    unreadable = ingested({"files": files}, max_bad_share=1)[1]
    assert [(row["instruction"], row["completion"]) for row in unreadable] == [
        ("['a\\ud800']", "x"),
        ("{broken", ""),
        ("[1]", ""),
    ]
    with pytest.raises(DataError, match="has no rows"):
        ingested({"files": chats}, max_bad_share=1)


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
    rows, unreadable, _ = ingested({"files": str(path)}, max_bad_share=0.5)
    assert (rows[0]["instruction"], rows[0]["tests"], rows[0]["group"]) == ("p", ["assert True"], "3")
    assert unreadable[0]["reasons"] == ["no completion: column 'code' is null"]


@pytest.mark.parametrize("values", [pa.array([b"c"]), pa.array([["c"]]), pa.array([{"a": "c"}]), pa.array([1.5])])
def test_parquet_of_another_type_than_text_is_set_aside(tmp_path: Path, values: pa.Array) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["p"], "code": values}), path)
    with pytest.raises(DataError, match=r"rows\.parquet\[0\]: column 'code' holds a value of type \w+, not text"):
        ingested({"files": str(path)})


def test_a_parquet_date_that_python_cannot_hold_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    dates = pa.array([2**61], pa.timestamp("ms"))
    pq.write_table(pa.table({"prompt": ["p"], "code": ["c"], "when": dates}), path)
    with pytest.raises(DataError, match=r"rows\.parquet: not readable as Parquet: ") as caught:
        ingested({"files": str(path)})
    assert "\n" not in str(caught.value)
