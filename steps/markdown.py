"""Pieces of Markdown in which foreign text stays text: model cards quote rows, answers and names."""

import re
from collections.abc import Iterable, Sequence


def fenced(text: str, language: str = "") -> str:
    """The text as a block of code; its fence is longer than any run of backticks inside."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def code(text: str) -> str:
    """The text as code within a line, its white space collapsed; it cannot end the code or a table's cell."""
    line = " ".join(text.split()).replace("|", "\\|")
    mark = "`" * (_longest_run(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{mark}{space}{line}{space}{mark}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
