"""What runs again when something changes: every cell of the cache table, through real runs on a tiny model."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.end_to_end.cache_table import ROWS, STEPS, Row, markdown
from tests.end_to_end.conftest import ROOT


@pytest.fixture(scope="module")
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The steps that ran for each row, in a copy of this checkout: other tests use this one."""
    folder = tmp_path_factory.mktemp("table")
    tree, work = folder / "tree", folder / "work"
    for name in ("pipelines", "steps", "materializers", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    work.mkdir()
    titles = [row.title for row in ROWS if any(f"[{row.title}]" in item.name for item in request.session.items)]
    places = {"ZENML_CONFIG_PATH": str(folder / "zenml"), "XDG_CACHE_HOME": str(folder / "cache")}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.end_to_end.cache_runs", str(work), *titles],
        cwd=tree,
        env={**os.environ, **places, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    found: dict[str, list[str]] = json.loads((work / "ran.json").read_text(encoding="utf-8"))
    return found


def test_the_first_run_runs_every_step(ran: dict[str, list[str]]) -> None:
    assert set(ran["the first run"]) == {"resolve", *STEPS}


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.title, marks=[pytest.mark.slow] if row.slow else []) for row in ROWS]
)
def test_a_change_runs_what_depends_on_it_and_nothing_else(ran: dict[str, list[str]], row: Row) -> None:
    assert set(ran[row.title]) == {"resolve", *row.runs}


def test_the_documented_table_is_this_one() -> None:
    shown = (ROOT / "docs" / "cache.md").read_text(encoding="utf-8")
    assert markdown() in shown, "write it again with: python -m tests.end_to_end.cache_table"
