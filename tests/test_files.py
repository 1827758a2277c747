"""Space on the disk."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from steps.errors import DeviceError
from steps.files import require_space

Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 1_000_000_000))
    require_space(tmp_path / "not" / "yet", 1_000_000_000, "the merged model")
    with pytest.raises(DeviceError, match=r"the merged model needs 2\.00 GB and 1\.00 GB are free; free some space"):
        require_space(tmp_path / "not" / "yet", 2_000_000_000, "the merged model")
