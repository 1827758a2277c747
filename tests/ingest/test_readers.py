"""All kinds of files give the same rows, each with its place."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.ingest.readers import READERS, read_file
from steps.ingest.records import Record

ROWS = [
    {"instruction": 'Añade\ndos líneas, "quoted"', "output": "a = 1\nb = 2"},
    {"instruction": "U+2028 \u2028 is no end of line", "output": "x = '\u2028'"},
]


def _write(path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            delimiter = "," if path.suffix == ".csv" else "\t"
            writer = csv.DictWriter(stream, ["instruction", "output"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS), encoding="utf-8-sig")
    else:
        lines = "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
        path.write_text(lines, encoding="utf-8-sig", newline="")


PLACES = {
    ".jsonl": [":1", ":3"],
    ".json": ["[0]", "[1]"],
    ".csv": [":2", ":5"],
    ".tsv": [":2", ":5"],
    ".parquet": ["[0]", "[1]"],
}


@pytest.mark.parametrize(
    ("suffix", "zipped"),
    [(suffix, False) for suffix in READERS] + [(suffix, True) for suffix in READERS if suffix != ".parquet"],
)
def test_every_kind_of_file_gives_columns_rows_and_places(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"rows{suffix}"
    _write(path)
    if zipped:
        content = path.read_bytes()
        path = tmp_path / f"rows{suffix}.gz"
        path.write_bytes(gzip.compress(content))
    found = read_file(path)
    assert found.columns == ["instruction", "output"]
    records = [record for record in found.records if not record.blank]
    assert records == [Record(f"{path}{place}", row) for place, row in zip(PLACES[suffix], ROWS, strict=True)]


def test_jsonl_columns_are_those_of_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n')
    assert read_file(path).columns == ["a", "b"]


def test_a_bad_line_of_a_table_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'prompt,code\n"p"x,c\nq,\xff\nr\ns,d\n')
    records = list(read_file(path).records)
    assert [(record.location, record.problem.split(":")[0]) for record in records[:3]] == [
        (f"{path}:2", "not valid CSV"),
        (f"{path}:3", "not UTF-8 (byte 0xff)"),
        (f"{path}:4", "1 cells under a header of 2"),
    ]
    assert records[3] == Record(f"{path}:5", {"prompt": "s", "code": "d"})


def test_a_cell_may_be_longer_than_python_s_own_limit(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt,code\np,{'c' * 200_000}\n")
    (record,) = read_file(path).records
    assert record.fields["code"] == "c" * 200_000
