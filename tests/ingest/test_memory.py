"""Memory does not grow with the number of rows, readable or not."""

import json
import tracemalloc
from pathlib import Path

import pytest

from tests.ingest.ingested import ingested

ROWS = 15_000
LIMIT = 6_000_000
"""Bytes of Python objects; the file has 15 million."""


def _file(folder: Path, completion: str) -> Path:
    path = folder / "rows.jsonl"
    with path.open("w") as stream:
        for number in range(ROWS):
            stream.write(json.dumps({"prompt": f"{number} " + "p" * 500, "code": completion * 250}) + "\n")
        stream.write('{"prompt": "p", "code": "c"}\n')  # a source needs one row
    return path


@pytest.mark.parametrize(("completion", "unreadable"), [("ab", 0), ("a\0", ROWS)])
def test_rows_wait_on_disk(tmp_path: Path, completion: str, unreadable: int) -> None:
    path = _file(tmp_path, completion)
    assert path.stat().st_size > 2 * LIMIT
    tracemalloc.start()
    try:
        read, set_aside, _ = ingested({"files": str(path)}, max_bad_share=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(read), len(set_aside)) == (ROWS + 1 - unreadable, unreadable)
    assert peak < LIMIT
