"""Files that are whole or absent, and space on the disk."""

import shutil
from collections import namedtuple
from pathlib import Path
from unittest.mock import Mock

import pytest

from steps.errors import DeviceError
from steps.files import require_space, whole_directory, write_whole

Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 1_000_000_000))
    require_space(tmp_path / "not" / "yet", 1_000_000_000, "the merged model")
    with pytest.raises(DeviceError, match=r"the merged model needs 2\.00 GB and 1\.00 GB are free; free some space"):
        require_space(tmp_path / "not" / "yet", 2_000_000_000, "the merged model")


def test_a_failed_block_leaves_no_directory(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with whole_directory(tmp_path / "model") as temporary:
            (temporary / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    with whole_directory(tmp_path / "model") as temporary:
        (temporary / "whole").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_that_could_not_be_replaced_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_whole(path, "before")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", Mock(side_effect=OSError("no more")))
        with pytest.raises(OSError, match="no more"):
            write_whole(path, "never")
    assert path.read_text(encoding="utf-8") == "before"
    write_whole(path, "after")
    assert [one.read_text(encoding="utf-8") for one in tmp_path.iterdir()] == ["after"]
