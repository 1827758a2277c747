"""Whatever stands in a file, each record is a row, an unreadable row or a blank line, and nothing crashes."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.errors import DataError
from steps.ingest.columns import FORBIDDEN, FORBIDDEN_IN_TESTS
from steps.ingest.report import IngestReport
from tests.ingest.ingested import GOOD, ingested

TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # halves of surrogate pairs too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["instruction", "input", "output", "text", "code", "test_list", "test_setup_code", "task_id", "license", "messages"]
)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]) | JSON, "content": JSON})
RECORD = st.dictionaries(NAMES | TEXT, JSON | st.lists(MESSAGE, max_size=3), max_size=5)


def _ingest(name: str, content: bytes) -> tuple[Dataset, Dataset, IngestReport] | None:
    """What ingestion made of the file; None where it refused the file as a whole in one printable line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return ingested({"files": str(path)}, max_bad_share=1)
        except DataError as error:
            assert str(error).isprintable()  # noqa: PT017 - an error is one of the two right results
            return None


def _lines(content: bytes) -> int:
    return content.count(b"\n") + bool(content and not content.endswith(b"\n"))


def _check(found: tuple[Dataset, Dataset, IngestReport], records: int) -> None:
    rows, unreadable, report = found
    assert records == report.sources[0].records == len(rows) + len(unreadable) + report.blank
    assert (len(rows), len(unreadable)) == (report.rows, report.unreadable)
    for row in rows:
        assert row["instruction"].strip()
        assert row["completion"].strip()
        assert not FORBIDDEN.search(row["instruction"] + row["completion"])
        assert not FORBIDDEN_IN_TESTS.search("".join(row["tests"]))
        assert "\r" not in row["completion"]
    assert all(row["reasons"] and all(row["reasons"]) for row in unreadable)


@settings(max_examples=60)
@given(st.lists(RECORD | JSON, max_size=5))
def test_any_json_value_in_any_field_of_a_line(values: list[object]) -> None:
    content = b"".join(json.dumps(value).encode() + b"\n" for value in [GOOD, *values])
    found = _ingest("rows.jsonl", content)
    assert found is not None
    _check(found, len(values) + 1)


@settings(max_examples=40)
@given(st.lists(RECORD | JSON, max_size=5))
def test_any_json_value_in_a_list(values: list[object]) -> None:
    found = _ingest("rows.json", json.dumps([*values, GOOD]).encode())
    assert found is not None
    _check(found, len(values) + 1)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=20) | TEXT.map(lambda text: text.encode(errors="surrogatepass")), max_size=6))
def test_any_bytes_as_a_line(lines: list[bytes]) -> None:
    content = b"\n".join([json.dumps(GOOD).encode(), *lines])
    found = _ingest("rows.jsonl", content)
    assert found is not None
    _check(found, _lines(content))


@settings(max_examples=60)
@given(st.lists(st.lists(st.binary(max_size=6), max_size=3).map(b",".join), max_size=5))
def test_any_bytes_in_a_table(lines: list[bytes]) -> None:
    found = _ingest("rows.csv", b"\n".join([b"prompt,code", b"Add,a + b", *lines]))
    if found is not None:  # a quote that stays open
        _check(found, found[2].sources[0].records)


@settings(max_examples=60)
@given(st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a.csv.gz"]), st.binary())
def test_any_bytes_as_a_file(name: str, content: bytes) -> None:
    found = _ingest(name, content)
    if found is not None:
        _check(found, found[2].sources[0].records)


@pytest.mark.parametrize(
    "text", [lambda depth: "[" * depth + "]" * depth, lambda depth: '{"a":' * depth + "1" + "}" * depth]
)
def test_nesting_at_the_limit_of_what_python_can_read(text: Callable[[int], str]) -> None:
    for depth in (10, *range(800, 1000, 10), 5000):
        lines = [json.dumps(GOOD), f'{{"instruction": {text(depth)}, "output": "x"}}', text(depth)]
        found = _ingest("rows.jsonl", "\n".join(lines).encode())
        assert found is not None
        _check(found, 3)
