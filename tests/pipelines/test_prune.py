"""What killed work left goes with ``qlora prune`` once it is old, unless that work runs again."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from zenml.client import Client

from pipelines.cli import main
from steps.files import lock_of, locked
from steps.train.checkpoint import default_root


def test_what_killed_work_left_goes_when_it_is_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root, store = default_root(), Path(Client().active_stack.artifact_store.path)
    old, fresh, running, answers = (root / name for name in ("a" * 32, "b" * 32, "c" * 32, "evaluations"))
    shards = store / f".merge-{'d' * 32}"
    for folder in (old, fresh, running, answers, shards):
        (folder / "part").mkdir(parents=True)
        (folder / "part" / "weights").write_bytes(bytes(500_000))
        lock_of(folder).touch()
        os.utime(folder, (1e9, 1e9))
    os.utime(fresh)
    with locked(lock_of(running), RuntimeError):
        done = CliRunner().invoke(main, ["prune", "--keep", "1000", "--yes"])
    assert done.exit_code == 0, done.output
    assert "3 folders, not touched for 30 days    1.50 MB" in done.stdout
    kept = [path for folder in (fresh, running, answers) for path in (folder, lock_of(folder))]
    assert sorted(root.iterdir()) == sorted(kept)
    assert list(store.glob(".merge-*")) == []
