"""Readers of tables: CSV, TSV (quoted as CSV is) and Parquet."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from steps.errors import DataError
from steps.ingest.records import Record, Records, not_utf8, opened
from steps.rows import BATCH_ROWS

LONGEST_CELL = 2**31 - 1
"""Characters; Python's own limit of 131,072 is shorter than some code."""


class _Cells(NamedTuple):
    """One row of a table, at the line that it starts on; a blank line has no cells."""

    location: str
    cells: list[str]
    problem: str = ""


def read_csv(path: Path, delimiter: str) -> Records:
    """The records below the header, which is the first line that is not blank.

    Raises:
        DataError: a header that cannot be read, or, while iterating, a quote that is never closed.
    """
    found = (row for row in _csv_rows(path, delimiter) if row.cells or row.problem)
    header = next(found, _Cells("", []))
    if header.problem:
        raise DataError(f"{header.location}: {header.problem} in the header; mend the file")
    return Records(header.cells, _csv_records(path, delimiter, header))


def _csv_records(path: Path, delimiter: str, header: _Cells) -> Iterator[Record]:
    for location, cells, problem in _csv_rows(path, delimiter):
        if problem:
            yield Record(location, problem=problem, found=delimiter.join(cells))
        elif not cells:
            yield Record(location, blank=True)
        elif len(cells) != len(header.cells):
            problem = f"{len(cells)} cells under a header of {len(header.cells)}"
            yield Record(location, problem=problem, found=delimiter.join(cells))
        elif location != header.location:
            yield Record(location, dict(zip(header.cells, cells, strict=True)))


def _csv_rows(path: Path, delimiter: str) -> Iterator[_Cells]:
    """Strict about quotes, since one that is never closed would swallow the rest of the file."""
    csv.field_size_limit(LONGEST_CELL)
    with opened(path) as stream:
        # Bytes that are not UTF-8 become halves of surrogate pairs, so that they spoil their own row only.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        while True:
            location = f"{path}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise DataError(f"{location}: not valid CSV: {error}, a quote stays open; mend the file") from error
                yield _Cells(location, [], f"not valid CSV: {error}")
            else:
                yield _Cells(location, cells, _spoilt(cells))


def _spoilt(cells: list[str]) -> str:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError as error:
        return f"not UTF-8 (byte 0x{ord(error.object[error.start]) - 0xDC00:02x})"
    return ""


def read_parquet(path: Path) -> Records:
    """The records by their number from 0.

    Raises:
        DataError: not Parquet, or, while iterating, a damaged part.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(_not_parquet(path, error)) from error
    return Records(columns, _parquet_records(path))


def _parquet_records(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for fields in batch.to_pylist():
                    yield Record(f"{path}[{index}]", fields)
                    index += 1
    except UnicodeDecodeError as error:
        raise DataError(f"{path}[{index}]: {not_utf8(error)}; write the file again as UTF-8") from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # also a date that Python cannot hold
        raise DataError(_not_parquet(path, error)) from error


def _not_parquet(path: Path, error: Exception) -> str:
    return f"{path}: not readable as Parquet: {str(error).splitlines()[0]}; write the file again"
