"""Reads evaluation sets as rows of a question and an answer."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from steps.errors import DataError
from steps.files import sha256_of
from steps.resolve.evaluation_sets import evaluation_file
from steps.resolve.locks import LockedSource
from steps.rows import table_of

ITEM_FEATURES = Features({name: Value("string") for name in ("location", "instruction", "completion")})
SHAPES = (("prompt", "canonical_solution"), ("text", "code"), ("instruction", "completion"))
"""Names of question and answer in HumanEval, in MBPP and here."""


def read_evaluation_set(lock: LockedSource) -> Dataset:
    """The items of a locked set (``ITEM_FEATURES``); ``location`` is the item's task_id, or its file and line.

    Raises:
        DataError: the file changed since it was locked, is not UTF-8 JSON lines, or an item has no question and answer.
    """
    path = evaluation_file(lock.name)
    if [sha256_of(path)] != list(lock.files.values()):
        raise DataError(f"{path}: changed since the resolve step locked it; start the run again")
    return table_of(_items(path), ITEM_FEATURES)


def _items(path: Path) -> Iterator[dict[str, str]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _item(json.loads(line), f"{path}:{number}")
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number}: not JSON ({error.msg}); give a file of one JSON object a line") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a whole .gz file ({error}); write it again") from error


def _item(item: Any, where: str) -> dict[str, str]:
    for question, answer in SHAPES:
        if isinstance(item, dict) and isinstance(item.get(question), str) and isinstance(item.get(answer), str):
            location = str(item.get("task_id", where))
            return {"location": location, "instruction": item[question], "completion": item[answer]}
    shapes = ", ".join(" and ".join(shape) for shape in SHAPES)
    raise DataError(f"{where}: no question and answer; an item needs the texts {shapes}")
