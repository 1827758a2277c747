"""The progress line: redrawn on a terminal, whole lines in a log, never wider than the terminal."""

import io
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from steps.progress import Progress, _fitted

ROOT = Path(__file__).resolve().parents[1]
WORK = """
from steps.progress import Progress
with Progress("train", 50) as progress:
    for step in range(1, 51):
        progress.advance(step, "loss 1.234  validation 1.345  3,106 tok/s  7.7 GiB")
"""


def test_a_log_gets_few_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """The first one, so that one sees that it has begun, and the last; none in between as long as it is quick."""
    with Progress("train", 1000) as progress:
        for step in range(1, 1001):
            progress.advance(step, "loss 1.234")
    said = capsys.readouterr().out
    first, last = said.splitlines()
    assert "\r" not in said
    assert "\x1b" not in said
    assert first.split()[:5] == ["train", "·" * 24, "1/1000", first.split()[3], "left"]
    assert first.endswith("  loss 1.234")
    assert last.split()[:3] == ["train", "━" * 24, "1000/1000"]
    assert last.endswith(" in all  loss 1.234")


@pytest.mark.parametrize(("spent", "expected"), [(59, 5), (3600, 1), (360_000, 1)])
def test_lines_become_rarer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, spent: float, expected: int
) -> None:
    """In a minute, after so many seconds: one every ten seconds at first, at last one a minute."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)  # no test waits for hours
    progress = Progress("train", 10**9)
    progress.start -= spent
    progress.advance(1)
    capsys.readouterr()
    for step in range(2, 61):
        now = step - 1.0
        progress.advance(step)
    now = 60.0
    progress.advance(61)
    assert len(capsys.readouterr().out.splitlines()) in (expected, expected + 1)


def test_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", 2) as progress:
        progress.say("before")
        progress.advance(2)
        progress.say("after")
    said = capsys.readouterr().out.splitlines()
    assert (said[0], said[-1], len(said)) == ("before", "after", 3)


def on_terminal(columns: int) -> str:
    """What a terminal of so many columns gets."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen([sys.executable, "-c", WORK], cwd=ROOT, stdout=theirs, env=environment) as child:
        os.close(theirs)
        said = io.BytesIO()
        try:
            while part := os.read(ours, 65536):
                said.write(part)
        except OSError:  # how Linux says that the other end is closed
            pass
        assert child.wait() == 0
    os.close(ours)
    return said.getvalue().decode()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_gets_one_line_that_never_wraps(columns: int) -> None:
    said = on_terminal(columns)
    assert said.count("\n") == 1
    assert said.endswith("\r\n")
    first, *_, last = drawings = [part for part in said.replace("\x1b[K", "").rstrip().split("\r") if part]
    assert max(map(len, drawings)) < columns
    assert " 1/50  0:00 left" in first
    assert " 50/50  0:00 in all  loss 1.234" in last
    assert last.endswith("7.7 GiB") is (columns > 40)
    assert ("━" in last) is (columns > 80)


def test_the_bar_gives_way_before_the_figures() -> None:
    text = "50/50  loss 1.234"
    assert "━" * 24 in _fitted("train", 1.0, text)
    assert _fitted("train", 1.0, text, 40) == "  train " + "━" * 13 + " " + text
    assert _fitted("train", 1.0, text, 26) == "  train " + text
    assert _fitted("train", 1.0, text, 20) == ("  train " + text)[:19]
