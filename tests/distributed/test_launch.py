"""Machines, what is told of processes that failed, and what processes import."""

import ast
from pathlib import Path

import pytest

from steps.distributed.failure import Failure, error_of, failure_of, failures
from steps.distributed.launch import Launch, first_failure
from steps.distributed.machine import FOLDER, Machine
from steps.errors import ConfigError, DataError, TrainingError
from steps.fingerprint import _imported_files


def test_machines_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Machine.here() == Machine()
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv("NODE_RANK", "1")
    with pytest.raises(ConfigError, match=r"NNODES is 2, and MASTER_ADDR, MASTER_PORT, QLORA_SHARED_FOLDER is not set"):
        Machine.here()
    for name, value in (("MASTER_ADDR", "first"), ("MASTER_PORT", "29500"), (FOLDER, "/shared")):
        monkeypatch.setenv(name, value)
    assert Machine.here() == Machine(1, 2, "first", 29500, Path("/shared"))


def failed(rank: int, at: float, error: Exception) -> Failure:
    return failure_of(error, rank, "now").model_copy(update={"at": at})


def test_the_first_failure_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not the processes that failed since it was gone, nor those of an attempt before."""
    failed(0, 2.0, RuntimeError("connection closed by peer")).write(tmp_path)
    failed(1, 1.0, ValueError("the cause")).write(tmp_path)
    failed(2, 0.5, ValueError("of another attempt")).model_copy(update={"attempt": "before"}).write(tmp_path)
    launch = Launch("module", tmp_path, 2, attempt="now")
    first = first_failure(launch, [1, 1])
    assert (first.rank, first.message) == (1, "the cause")
    error = error_of(first, 2, TrainingError, "all is kept")
    assert isinstance(error, TrainingError)
    said = "process 1 of 2 (from 0) failed first, and the others were ended: ValueError: the cause; all is kept, so run"
    assert said in str(error)
    assert "ValueError: the cause" in capsys.readouterr().err
    killed = first_failure(launch, [1, -9])
    assert (killed.rank, killed.message) == (1, "it was killed by signal 9 (by the system where memory is short)")
    assert [one.rank for one in failures(tmp_path, "before")] == [2]


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = error_of(failed(0, 1.0, DataError("rows.jsonl:3: no end token")), 2, TrainingError, "")
    assert type(error) is DataError
    assert str(error) == "rows.jsonl:3: no end token"


@pytest.mark.parametrize("worker", ["steps/train/distributed/worker.py", "steps/evaluate/distributed/worker.py"])
def test_the_processes_need_no_orchestrator(worker: str) -> None:
    """They run where ZenML need not be installed."""
    files = _imported_files(Path(worker).resolve())
    assert len(files) > 50
    imported = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = [alias.name for node in imported if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in imported if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] == "zenml"]
    assert "torch" in names
