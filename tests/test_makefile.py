"""What ``make`` answers before it installs anything."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("version", ["3.10.13", "3.14.0", None])
def test_another_python_is_refused_with_its_version(tmp_path: Path, version: str | None) -> None:
    """Python 3.10 itself is not at hand: a script that answers as it would, or nothing at all."""
    python = tmp_path / "python"
    if version is not None:
        numbers = version.replace(".", ", ")
        said = f"import sys; print('Python {version}') if sys.argv[1] == '--version' else None"
        asked = f"sys.version_info = ({numbers}); exec(sys.argv[2]) if sys.argv[1] == '-c' else None"
        python.write_text(f"#!{sys.executable}\n{said}\n{asked}\n", encoding="utf-8")
        python.chmod(0o700)
    made = subprocess.run(
        [shutil.which("make") or "make", "install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode != 0
    (line,) = (line for line in made.stderr.splitlines() if line.startswith("error: "))
    assert f"{python} is not Python 3.11 to 3.13 (" in line
    assert (f"(Python {version})" if version else "not found") in line
    assert line.endswith("name one that is: make install PYTHON=python3.12")
    assert not (tmp_path / "venv").exists()
