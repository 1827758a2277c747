"""Readers of files: .jsonl and .json here, tables in their own module."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from steps.errors import DataError
from steps.ingest.records import Record, Records, not_utf8, opened
from steps.ingest.tables import read_csv, read_parquet


def read_file(path: Path) -> Records:
    """The records of a .jsonl, .json, .csv, .tsv or .parquet file; text files may end in .gz too.

    Raises:
        DataError: another kind of file, or, also while iterating, one that is not what its name says.
    """
    zipped = path.suffix.lower() == ".gz"
    reader = READERS.get(Path(path.stem if zipped else path).suffix.lower())
    if reader is None or (zipped and reader is read_parquet):
        raise DataError(f"{path}: not one of {', '.join(READERS)} (text also .gz); convert it or narrow the pattern")
    return reader(path)


def _read_jsonl(path: Path) -> Records:
    """Reads the file twice, since a later line may have a column that the first has not."""
    columns: dict[str, None] = {}
    for record in _jsonl_records(path):
        columns.update(dict.fromkeys(record.fields))
    return Records(list(columns), _jsonl_records(path))


def _jsonl_records(path: Path) -> Iterator[Record]:
    with opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            yield _json_line(line, f"{path}:{number}")


def _json_line(line: bytes, location: str) -> Record:
    try:
        text = line.decode().removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return Record(location, problem=not_utf8(error), found=line.decode(errors="replace"))
    if not text or text.isspace():
        return Record(location, blank=True)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        return Record(location, problem=f"not valid JSON: {what} at column {error.colno}", found=text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        return Record(location, problem=f"not readable JSON: {error}", found=text)
    return _as_record(value, location)


def _as_record(value: Any, location: str) -> Record:
    if not isinstance(value, dict):
        return Record(location, problem=f"not a JSON object but a {type(value).__name__}", found=value)
    return Record(location, value)


def _read_json(path: Path) -> Records:
    """Holds the whole file in memory; .jsonl does not."""
    try:
        with opened(path) as stream:
            value = json.loads(stream.read().decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {not_utf8(error)}; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        advice = "one object a line is named .jsonl" if error.msg == "Extra data" else "mend or remove the file"
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable JSON: {error}; mend or remove the file") from error
    if not isinstance(value, list):
        raise DataError(f"{path}: holds a {type(value).__name__}, not a list of objects; put the rows in one list")
    columns = dict.fromkeys(name for item in value if isinstance(item, dict) for name in item)
    return Records(list(columns), (_as_record(item, f"{path}[{i}]") for i, item in enumerate(value)))


READERS: dict[str, Callable[[Path], Records]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": partial(read_csv, delimiter=","),
    ".tsv": partial(read_csv, delimiter="\t"),
    ".parquet": read_parquet,
}
