"""Pins what the evaluation reads beside the run's own rows: sets, the reference text, tasks of lm-eval."""

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from steps.errors import DataError
from steps.files import sha256_of
from steps.resolve.evaluation_sets import BENCHMARKS_KEY, lock_evaluation_sets
from steps.resolve.locks import BenchmarkLock, LockedSource

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

TEXT_KEY = "parameters.evaluation.reference_text"
TASKS_KEY = "parameters.evaluation.tasks"
EXTRA = "lm-eval"


def lock_benchmarks(sets: Iterable[str], reference_text: str | None, tasks: Mapping[str, str | None]) -> BenchmarkLock:
    """Pin each of them to exact bytes; the data sets of lm-eval's own tasks are the hub's, so there it is a version.

    Args:
        sets: packages and paths of evaluation sets.
        reference_text: path of the reference text; None for none.
        tasks: by their names, the folder of each task's file; None where it is lm-eval's own.

    Raises:
        DataError: a file, a folder, a task or the extra is missing, or a task runs what the model writes.
    """
    return BenchmarkLock(
        sources=lock_evaluation_sets(sets, BENCHMARKS_KEY).sources,
        reference_text=None if reference_text is None else _lock_text(reference_text),
        tasks=list(_lock_tasks(tasks)),
    )


def reference_file(name: str) -> Path:
    """Where a reference text lies.

    Raises:
        DataError: there is no such file.
    """
    path = Path(name)
    if not path.is_file():
        raise DataError(f"{TEXT_KEY}: no file {name!r} below {Path.cwd()}; mend the path or give null")
    return path


def task_manager(folder: str | None) -> "TaskManager":
    """lm-eval's own tasks, or those of a folder alone: reading the thousands of others takes seconds.

    Raises:
        DataError: lm-eval is not installed, or the folder is missing.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise DataError(f'{TASKS_KEY}: lm-eval is not installed; run: pip install -e ".[{EXTRA}]"')
    if folder is not None and not Path(folder).is_dir():
        raise DataError(f"{TASKS_KEY}: include names no folder {folder!r} below {Path.cwd()}; mend the path")
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder, include_defaults=folder is None)


def _lock_text(name: str) -> LockedSource:
    return LockedSource(name=name, files={name: sha256_of(reference_file(name))})


def _lock_tasks(tasks: Mapping[str, str | None]) -> Iterator[LockedSource]:
    managers = {folder: task_manager(folder) for folder in dict.fromkeys(tasks.values())}
    for name, folder in tasks.items():
        _require_safe(name, managers[folder])
        yield LockedSource(name=name, files=_task_files(folder) if folder else {}, version=version(EXTRA))


def _task_files(folder: str) -> dict[str, str]:
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path.as_posix(): sha256_of(path) for path in paths}


def _require_safe(name: str, manager: "TaskManager") -> None:
    """lm-eval runs the answers of tasks that it marks ``unsafe_code`` in this process, as this user."""
    if name not in manager.task_index:
        raise DataError(f"{TASKS_KEY}: lm-eval knows no task {name!r}; `lm_eval ls tasks` lists its own")
    for member in _members(name, manager):
        if (manager.task_index[member].cfg or {}).get("unsafe_code"):
            raise DataError(
                f"{TASKS_KEY}: {name} runs the code that the model writes, unguarded (unsafe_code of {member}); "
                f"name its problems in {BENCHMARKS_KEY} instead, which run in the sandbox"
            )


def _members(name: str, manager: "TaskManager") -> Iterator[str]:
    """The tasks behind a name: those of a group or a tag, or itself."""
    entry = manager.task_index[name]
    if name in manager.all_subtasks:
        yield name
    elif name in manager.all_tags:
        yield from (one for tag_member in entry.tags for one in _members(tag_member, manager))
    else:
        children = (entry.cfg or {}).get("task", [])
        names = [child if isinstance(child, str) else child.get("task") or child.get("group") for child in children]
        yield from (one for child in names if child in manager.task_index for one in _members(child, manager))
