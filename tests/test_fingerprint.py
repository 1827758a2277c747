"""What makes a step run again, and what does not."""

import os
import sys
import time
from pathlib import Path

import pytest

from steps import fingerprint as module
from steps.fingerprint import fingerprint

IMPORTS = """import steps.room.plain
from library import far
from materializers.far import VALUE
from pipelines import far
from steps.room import deep, page, progress, record
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one room whose step imports a module that imports another."""
    room = tmp_path / "steps" / "room"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text("")
    (room / "step.py").write_text("def run():\n    from steps.room.work import work\n    return work()\n")
    (room / "work.py").write_text(f"{IMPORTS}\ndef work():\n    return deep.VALUE\n")
    (room / "deep.py").write_text('"""Words."""\nVALUE = 1  # a comment\n')
    for name in ("page", "progress", "record", "other", "plain"):
        (room / f"{name}.py").write_text("VALUE = 1\n")
    for folder in ("library", "materializers", "pipelines"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "far.py").write_text("VALUE = 1\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return room


@pytest.mark.parametrize(
    ("file", "text", "same"),
    [
        ("deep.py", '"""Words."""\nVALUE = 2\n', False),
        ("plain.py", "VALUE = 2\n", False),
        ("work.py", f"{IMPORTS}\ndef work():\n    return deep.VALUE + 0\n", False),
        ("../../materializers/far.py", "VALUE = 2\n", False),
        ("../../pipelines/far.py", "VALUE = 2\n", False),
        ("../../library/far.py", "VALUE = 2\n", True),
        ("deep.py", '"""Other words."""\nVALUE = 1  # another comment\n', True),
        ("page.py", "VALUE = 2\n", True),
        ("progress.py", "VALUE = 2\n", True),
        ("record.py", "VALUE = 2\n", True),
        ("other.py", "VALUE = 2\n", True),
    ],
    ids=[
        "imported value",
        "import without from",
        "function body",
        "materializers",
        "pipelines",
        "a library beside it, as where packages are installed",
        "comment and docstring",
        "page",
        "progress",
        "record",
        "module that it does not import",
    ],
)
def test_what_counts(project: Path, file: str, text: str, same: bool) -> None:
    before = fingerprint(str(project / "step.py"))
    (project / file).write_text(text)
    assert (fingerprint(str(project / "step.py")) == before) == same


def test_a_library_version_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(str(project / "step.py"), "trl")
    assert before != fingerprint(str(project / "step.py"))
    monkeypatch.setattr(module, "version", lambda _: "0.0.0")
    assert fingerprint(str(project / "step.py"), "trl") != before


def test_a_description_does_not_count_but_a_default_does(project: Path) -> None:
    found = []
    for default, text in ((1, "rank"), (1, "rank of the update"), (2, "rank")):
        (project / "deep.py").write_text(f'VALUE = Field(default={default}, description="{text}")\n')
        found.append(fingerprint(str(project / "step.py")))
    assert found[0] == found[1] != found[2]


def test_what_loads_an_input_counts(project: Path) -> None:
    folder = project.parents[1] / "materializers"
    for name in ("dataset", "directory"):
        (folder / f"{name}.py").write_text("VALUE = 1\n")
    step = (project / "step.py").read_text()
    (project / "step.py").write_text("from datasets import Dataset\n" + step)
    before = fingerprint(str(project / "step.py"))
    (folder / "directory.py").write_text("VALUE = 2\n")
    assert fingerprint(str(project / "step.py")) == before
    (folder / "dataset.py").write_text("VALUE = 2\n")
    assert fingerprint(str(project / "step.py")) != before


def test_code_edited_after_its_import_is_nobody_elses(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(str(project / "step.py"))
    monkeypatch.setattr(module, "IMPORTED_AT", module.IMPORTED_AT - 120)
    edited = module.IMPORTED_AT + 60
    os.utime(project / "deep.py", (edited, edited))
    assert fingerprint(str(project / "step.py")) == before, "this process has not imported it"
    monkeypatch.setitem(sys.modules, "steps.room.deep", module)
    once = fingerprint(str(project / "step.py"))
    assert once != before
    monkeypatch.setattr(module, "IMPORTED_AT", module.IMPORTED_AT + 1)
    assert fingerprint(str(project / "step.py")) not in (before, once), "another process"


def test_a_clock_that_was_set_back_runs_no_step_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files of the checkout are from the future then."""
    monkeypatch.setitem(sys.modules, "steps.room.deep", module)
    os.utime(project / "deep.py", (module.IMPORTED_AT - 60, module.IMPORTED_AT - 60))
    before = fingerprint(str(project / "step.py"))
    tomorrow = time.time() + 86400
    os.utime(project / "deep.py", (tomorrow, tomorrow))
    assert fingerprint(str(project / "step.py")) == before


def test_every_step_but_resolve_states_what_decides_it() -> None:
    rooms = sorted((Path(module.__file__).parent).glob("*/step.py"))
    assert len(rooms) == 11
    without = [path.parent.name for path in rooms if "cache_func=decided_by" not in path.read_text()]
    assert without == ["resolve"]


def test_nothing_that_draws_decides_a_step() -> None:
    """A page's layout may hold what a report is; how a figure looks belongs to modules that do not count."""
    drawing = {f"steps.page.{name}" for name in ("bars", "figure", "panels", "svg")}
    counted = {path for step in module.ROOT.glob("steps/*/step.py") for path in module._imported_files(step)}
    assert len(counted) > 100
    found = {path.name for path in counted if module._parsed(path.read_text(encoding="utf-8"))[0] & drawing}
    assert found == set()
