"""Readers of files and hub data sets: each gives the columns of a source and its records one by one."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.errors import DataError
from steps.resolve.params import Source


@dataclass(frozen=True)
class Record:
    """One record where it was found: its fields, or the reason why it has none."""

    location: str
    fields: Mapping[str, object]
    problem: str = ""


@dataclass(frozen=True)
class Records:
    """The columns of one file or data set, and its records."""

    columns: list[str]
    records: Iterator[Record]


def read_file(path: Path) -> Records:
    """The records of a .jsonl, .json, .csv or .parquet file.

    Raises:
        DataError: another kind of file, or, also while iterating, one that is not what its name says.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: not one of {', '.join(READERS)}; convert it or narrow the pattern")
    return reader(path)


def read_hub(source: Source, commit: str, key: str) -> Records:
    """The records of a hub data set at a commit, downloaded into the Hugging Face cache.

    Raises:
        DataError: no such subset or split, a data set that needs its own code, or no network.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        dataset = load_dataset(source.name, name=source.subset, split=source.split, revision=commit)
    except (DatasetsError, ValueError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{key}.hub: {source.name!r} at {commit[:12]}, subset {source.subset}, split {source.split!r} "
            f"cannot be loaded ({reason}); mend {key}.subset or {key}.split, or check the network"
        ) from error
    records = (Record(f"{source.name}:{source.split}[{i}]", fields) for i, fields in enumerate(dataset))
    return Records(list(dataset.column_names), records)


def _read_jsonl(path: Path) -> Records:
    columns: dict[str, None] = {}
    for record in _jsonl_records(path):
        columns.update(dict.fromkeys(record.fields))
    return Records(list(columns), _jsonl_records(path))


def _jsonl_records(path: Path) -> Iterator[Record]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            text = _decoded(line, f"{path}:{number}").removeprefix("\ufeff")
            if text.strip():
                yield _json_record(text, f"{path}:{number}")


def _json_record(text: str, location: str) -> Record:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return Record(location, {}, f"not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        return Record(location, {}, f"not readable JSON: {error}")
    return _as_record(value, location)


def _as_record(value: Any, location: str) -> Record:
    if not isinstance(value, dict):
        return Record(location, {}, f"not a JSON object but a {type(value).__name__}")
    return Record(location, value)


def _read_json(path: Path) -> Records:
    text = _decoded(path.read_bytes(), str(path)).removeprefix("\ufeff")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        advice = "one object a line is named .jsonl" if error.msg == "Extra data" else "mend or remove the file"
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}; {advice}") from error
    if not isinstance(value, list):
        raise DataError(f"{path}: holds a {type(value).__name__}, not a list of objects; put the rows in one list")
    records = [_as_record(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return Records(list(dict.fromkeys(name for record in records for name in record.fields)), iter(records))


def _read_csv(path: Path) -> Records:
    rows = _csv_rows(path)
    _, header = next(rows, (1, []))
    return Records(header, (_csv_record(header, cells, f"{path}:{line}") for line, cells in rows if cells))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every row and the line that it starts on; strict, since an open quote would swallow what follows."""
    line = 1
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            for cells in reader:
                yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}:{line}: not valid CSV: {error}; mend the file") from error
        except UnicodeDecodeError as error:
            raise DataError(_not_utf8(str(path), error)) from error


def _csv_record(header: list[str], cells: list[str], location: str) -> Record:
    if len(cells) != len(header):
        return Record(location, {}, f"{len(cells)} cells under a header of {len(header)}")
    return Record(location, dict(zip(header, cells, strict=True)))


def _read_parquet(path: Path) -> Records:
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
            for batch in file.iter_batches(batch_size=1000):
                for fields in batch.to_pylist():
                    yield Record(f"{path}[{index}]", fields)
                    index += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(_not_parquet(path, error)) from error
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(f"{path}[{index}]", error)) from error


def _not_parquet(path: Path, error: Exception) -> str:
    return f"{path}: not readable as Parquet: {str(error).splitlines()[0]}; write the file again"


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(where, error)) from error


def _not_utf8(where: str, error: UnicodeDecodeError) -> str:
    return f"{where}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8"


READERS = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
