"""One line that says how far long work is: redrawn on a terminal, now and then a new line in a log."""

import sys
import time
from typing import Self

LOG_INTERVAL = 10.0
"""Seconds between two lines where the output is not a terminal."""

BAR_WIDTH = 24


class Progress:
    """Progress of ``total`` units of work; use as a context manager."""

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = max(total, 1)
        self.done = 0
        self.start = time.monotonic()
        self.last_shown = 0.0
        self.terminal = sys.stdout.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.terminal and self.done:
            print(flush=True)

    def advance(self, done: int, note: str = "") -> None:
        """Say that ``done`` units are finished; ``note`` holds the figures of the moment."""
        self.done = done
        now = time.monotonic()
        finished = done >= self.total
        if not (self.terminal or finished or now - self.last_shown >= LOG_INTERVAL):
            return
        self.last_shown = now
        left = (now - self.start) / max(done, 1) * (self.total - done)
        when = f"{clock(now - self.start)} in all" if finished else f"{clock(left)} left"
        line = f"  {self.name} {_bar(done / self.total)} {done}/{self.total}  {note}{'  ' if note else ''}{when}"
        print(f"\r{line}\x1b[K" if self.terminal else line, end="" if self.terminal else "\n", flush=True)


def clock(seconds: float) -> str:
    """Seconds as ``3:07`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bar(share: float) -> str:
    full = round(min(share, 1.0) * BAR_WIDTH)
    return "━" * full + "·" * (BAR_WIDTH - full)
