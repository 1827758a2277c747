"""What every reader gives: the columns of a file or data set, and its records one by one."""

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from steps.errors import DataError


@dataclass(frozen=True, slots=True)
class Record:
    """One record where it was found: its fields; or why it has none, and what stands there; or a blank line."""

    location: str
    fields: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""
    found: object = None
    blank: bool = False


@dataclass(frozen=True)
class Records:
    """The columns of one file or data set, and its records."""

    columns: list[str]
    records: Iterator[Record]


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where its name ends in .gz.

    Raises:
        DataError: a .gz file that is not one, or that is cut short; also while it is read.
    """
    if path.suffix.lower() != ".gz":
        with path.open("rb") as stream:
            yield stream
        return
    try:
        with gzip.open(path) as unpacked:
            yield cast(BinaryIO, io.BufferedReader(unpacked))  # ten times as fast line by line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: not readable as gzip: {error}; write the file again") from error


def not_utf8(error: UnicodeDecodeError) -> str:
    """What is wrong with bytes that cannot be decoded."""
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x})"
