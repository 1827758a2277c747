"""One line that says how far long work is: redrawn on a terminal, now and then a new line in a log."""

import shutil
import sys
import time
from typing import Self

LOG_INTERVALS = (10.0, 60.0)
"""Seconds between two lines where the output is not a terminal: a sixtieth of the time so far, within these."""

REDRAW_INTERVAL = 0.1
"""Seconds between two drawings of the line on a terminal."""

BAR_WIDTH = 24


class Progress:
    """Progress of ``total`` units of work; use as a context manager."""

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = max(total, 1)
        self.start = time.monotonic()
        self.last_shown = float("-inf")
        self.terminal = sys.stdout.isatty()
        self.line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last line on the terminal, and in the log that ZenML keeps of what is printed."""
        if self.terminal and self.line:
            _draw("")
            print(self.line, flush=True)

    def advance(self, done: int, note: str = "") -> None:
        """Say that ``done`` units are finished; ``note`` holds the figures of the moment."""
        now = time.monotonic()
        spent, finished = now - self.start, done >= self.total
        shortest, longest = LOG_INTERVALS
        interval = REDRAW_INTERVAL if self.terminal else min(max(spent / 60, shortest), longest)
        if now - self.last_shown < interval and not finished:
            return
        self.last_shown = now
        when = f"{clock(spent)} in all" if finished else f"{clock(spent / max(done, 1) * (self.total - done))} left"
        text = f"{done}/{self.total}  {when}{'  ' if note else ''}{note}"
        if self.terminal:
            self.line = _fitted(self.name, done / self.total, text, shutil.get_terminal_size().columns)
            _draw(self.line)
        else:
            print(_fitted(self.name, done / self.total, text), flush=True)

    def say(self, text: str) -> None:
        """Print a line of its own; on a terminal the progress line stays below it."""
        if self.terminal and self.line:
            _draw("")
        print(text, flush=True)
        if self.terminal and self.line:
            _draw(self.line)


def _draw(line: str) -> None:
    """Replace the terminal's line; past ``sys.stdout.write``, from which ZenML would log every drawing."""
    sys.stdout.flush()
    sys.stdout.buffer.write(f"\r{line}\x1b[K".encode())
    sys.stdout.buffer.flush()


def _fitted(name: str, share: float, text: str, columns: int | None = None) -> str:
    """The line, with a shorter bar and at last without its end where ``columns`` are too few: it must not wrap."""
    room = BAR_WIDTH if columns is None else min(BAR_WIDTH, columns - len(f"  {name}  {text}") - 1)
    line = f"  {name} {_bar(share, room)} {text}" if room > 0 else f"  {name} {text}"
    return line if columns is None else line[: columns - 1]


def clock(seconds: float) -> str:
    """Seconds as ``3:07`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bar(share: float, width: int) -> str:
    full = round(min(share, 1.0) * width)
    return "━" * full + "·" * (width - full)
