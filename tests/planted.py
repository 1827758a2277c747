"""A search for a planted credential in everything that a run leaves behind."""

import base64
import binascii
import sqlite3
from collections.abc import Iterator
from pathlib import Path

TOKEN = "hf_PLANTEDinTheEnvironmentPLANTEDplant"
"""What HF_TOKEN is during the end-to-end tests."""

SECRETS = "secret"
"""The one table of ZenML's database whose purpose it is to hold credentials."""


def places_of(credential: str, *folders: Path) -> list[str]:
    """Where it stands below the folders: files byte by byte, and databases value by value, encoded ones too."""
    found = []
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if credential.encode() in path.read_bytes():
            found.append(str(path))
        if path.suffix == ".db":
            found += [f"{path}: {place}" for place in _columns_with(credential, path)]
    return found


def _columns_with(credential: str, database: Path) -> Iterator[str]:
    with sqlite3.connect(database) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in (name for name in tables if name != SECRETS):
            cursor = connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the name is the database's own
            columns = [column[0] for column in cursor.description]
            for row in cursor:
                yield from (
                    f"{table}.{column}" for column, value in zip(columns, row, strict=True) if _has(credential, value)
                )


def _has(credential: str, value: object) -> bool:
    content = value.encode() if isinstance(value, str) else value
    if not isinstance(content, bytes):
        return False
    try:
        decoded = base64.b64decode(content, validate=True)  # as ZenML writes configurations of a stack's components
    except binascii.Error:
        decoded = b""
    return credential.encode() in content or credential.encode() in decoded
