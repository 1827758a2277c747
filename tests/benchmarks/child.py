"""A side of a benchmark in a process of its own, whose last line of JSON is its result."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def command(script: str, *options: str) -> list[str]:
    """That runs a benchmark by its file."""
    return [sys.executable, "-W", "ignore", "-m", f"{__package__}.{Path(script).stem}", *options]


def child_result(command: Sequence[str], limit: int) -> tuple[dict[str, Any] | None, str, str]:
    """The result, None where it failed or took more than ``limit`` seconds; its output and its errors."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as late:
        return None, "", f"longer than {limit} s\n{late.stderr!r}"
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else None, done.stdout, done.stderr
