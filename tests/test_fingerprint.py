"""What makes a step run again, and what does not."""

from pathlib import Path

import pytest

from steps import fingerprint as module
from steps.fingerprint import fingerprint


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one room whose step imports a module that imports another."""
    room = tmp_path / "steps" / "room"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text("")
    (room / "step.py").write_text("def run():\n    from steps.room.work import work\n    return work()\n")
    (room / "work.py").write_text("from steps.room import deep, page\n\ndef work():\n    return deep.VALUE\n")
    (room / "deep.py").write_text('"""Words."""\nVALUE = 1  # a comment\n')
    (room / "page.py").write_text("COLOUR = 1\n")
    (room / "other.py").write_text("OTHER = 1\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return room


@pytest.mark.parametrize(
    ("file", "text", "same"),
    [
        ("deep.py", '"""Words."""\nVALUE = 2\n', False),
        ("work.py", "from steps.room import deep, page\n\ndef work():\n    return deep.VALUE + 0\n", False),
        ("deep.py", '"""Other words."""\nVALUE = 1  # another comment\n', True),
        ("page.py", "COLOUR = 2\n", True),
        ("other.py", "OTHER = 2\n", True),
    ],
    ids=["imported value", "function body", "comment and docstring", "presentation", "module that it does not import"],
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


def test_every_step_but_resolve_states_what_decides_it() -> None:
    rooms = sorted((Path(module.__file__).parent).glob("*/step.py"))
    assert len(rooms) == 10
    without = [path.parent.name for path in rooms if "cache_func=decided_by" not in path.read_text()]
    assert without == ["resolve"]
