"""Files that are whole or absent, and space on the disk."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from steps.errors import DeviceError
from steps.files import require_space, whole_directory

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
