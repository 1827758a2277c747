"""What the machine refuses is one line, whichever library says it."""

import errno
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sqlalchemy import create_engine, text

from pipelines.console import ConsoleFilter
from pipelines.refusals import refusal
from steps.errors import DataError, DeviceError


def full_file() -> None:
    with open("/dev/full", "w") as stream:
        stream.write("text")


def full_database() -> None:
    """SQLite's own limit says what a full disk says."""
    with create_engine("sqlite://").begin() as connection:
        connection.execute(text("CREATE TABLE many (value TEXT)"))
        connection.execute(text("PRAGMA max_page_count = 2"))
        connection.execute(text("INSERT INTO many VALUES (:value)"), {"value": "x" * 100_000})


def read_only_database(folder: Path) -> None:
    path = folder / "zenml.db"
    sqlite3.connect(path).execute("CREATE TABLE many (value TEXT)")
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO many VALUES ('x')"))


def no_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")


def wrapped() -> None:
    try:
        full_file()
    except OSError as error:
        raise RuntimeError("the step's result could not be stored") from error


def caught(call: Callable[[], None]) -> Exception:
    with pytest.raises(Exception) as info:  # noqa: PT011 - each library has a type of its own
        call()
    assert isinstance(info.value, Exception)
    return info.value


@pytest.mark.parametrize("call", [full_file, full_database, wrapped], ids=lambda call: call.__name__)
def test_a_full_disk(call: Callable[[], None]) -> None:
    found = refusal(caught(call))
    assert isinstance(found, DeviceError)
    message = str(found)
    assert message.startswith("a disk is full (")
    assert " GB in " in message
    assert message.endswith("free some space, then run the same again, which goes on after the last finished step")
    assert "\n" not in message


def test_a_read_only_disk(tmp_path: Path) -> None:
    for error in (
        OSError(errno.EROFS, os.strerror(errno.EROFS), "/store/file"),
        caught(lambda: read_only_database(tmp_path)),
    ):
        message = str(refusal(error))
        assert message.startswith("a disk is read-only (")
        assert "make it writable" in message


def test_too_little_memory() -> None:
    message = str(refusal(caught(no_memory)))
    assert message.startswith("memory is short (CUDA out of memory.); end what else uses it or take less")


def test_a_users_error_is_itself_and_a_program_s_is_none() -> None:
    error = DataError("rows.jsonl: there is no such file")
    assert refusal(error) is error
    assert refusal(ValueError("a mistake in the program")) is None


def test_the_log_has_no_traceback_and_no_statement() -> None:
    error = caught(full_database)
    record = logging.LogRecord("zenml", logging.ERROR, "", 0, "Failed to run step `%s`: %s", ("split", error), None)
    record.exc_info = (type(error), error, error.__traceback__)
    assert ConsoleFilter().filter(record)
    assert record.exc_info is None
    assert record.getMessage().startswith("Failed to run step `split`: a disk is full (")
    assert "INSERT" not in record.getMessage()
