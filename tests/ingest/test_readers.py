"""The four kinds of files give the same rows, each with its place."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.ingest.readers import READERS, Record, read_file

ROWS = [
    {"instruction": 'Añade\ndos líneas, "quoted"', "output": "a = 1\nb = 2"},
    {"instruction": "U+2028 \u2028 is no end of line", "output": "x = '\u2028'"},
]


def _write(path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, ["instruction", "output"])
            writer.writeheader()
            writer.writerows(ROWS)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS), encoding="utf-8-sig")
    else:
        lines = "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
        path.write_text(lines, encoding="utf-8-sig", newline="")


@pytest.mark.parametrize(
    ("suffix", "places"),
    [
        (".jsonl", [":1", ":3"]),
        (".json", ["[0]", "[1]"]),
        (".csv", [":2", ":5"]),
        (".parquet", ["[0]", "[1]"]),
    ],
)
def test_every_kind_of_file_gives_columns_rows_and_places(tmp_path: Path, suffix: str, places: list[str]) -> None:
    path = tmp_path / f"rows{suffix}"
    _write(path)
    found = read_file(path)
    assert found.columns == ["instruction", "output"]
    assert list(found.records) == [Record(f"{path}{place}", row) for place, row in zip(places, ROWS, strict=True)]


def test_every_reader_is_tested() -> None:
    assert set(READERS) == {".jsonl", ".json", ".csv", ".parquet"}


def test_jsonl_columns_are_those_of_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n')
    assert read_file(path).columns == ["a", "b"]
