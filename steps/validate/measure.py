"""What the rules judge of each row: lengths, what Python says to the completion, what was found inside the texts."""

import ast
import re
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from steps.validate.columns import POSITION, TEXTS
from steps.validate.params import ValidationParameters
from steps.validate.prompt import Prompt

if TYPE_CHECKING:
    import pandas as pd

FENCE = r"(?m)^\s*```"
STUB = (ast.Constant, ast.Name, ast.Tuple, ast.JoinedStr)
"""Expressions that do nothing by themselves: a lone word or text is valid Python."""


def measure(table: pa.Table, start: int, validation: ValidationParameters, prompt: Prompt) -> "pd.DataFrame":
    """One line a row of ``table``: ``TEXTS``, ``COUNTS``, the position counted from ``start``, and what was found.

    Columns ``syntax_error``, ``stub``, ``fence``, ``marker`` and ``special_token`` hold a text about what is wrong,
    "" where nothing is or the rule is off.
    """
    instructions, completions = table["instruction"], table["completion"]
    frame: pd.DataFrame = table.select(TEXTS).to_pandas()
    frame["instruction_chars"] = pc.utf8_length(pc.utf8_trim_whitespace(instructions)).to_numpy()
    frame["completion_chars"] = pc.utf8_length(pc.utf8_trim_whitespace(completions)).to_numpy()
    frame["instruction_tokens"] = prompt.token_counts(instructions.to_pylist())
    frame["completion_tokens"] = prompt.token_counts(completions.to_pylist())
    frame["example_tokens"] = frame["instruction_tokens"] + frame["completion_tokens"] + prompt.frame_tokens
    frame["test_count"] = pc.list_value_length(table["tests"]).to_numpy()
    frame[POSITION] = range(start, start + len(frame))
    looked = validation.completion_parses.action != "off" or validation.no_stub.action != "off"
    said = _python_of(completions) if looked else [("", "")] * len(frame)
    frame["syntax_error"] = [error for error, _ in said]
    frame["stub"] = [stub for _, stub in said]
    frame["fence"] = _found(table, ("completion",), FENCE)
    frame["marker"] = _found(table, ("instruction", "completion"), marker_pattern(prompt.markers))
    tokens = (*prompt.special_tokens, *validation.no_special_token.also)
    frame["special_token"] = _found(table, ("instruction", "completion"), _any_of(tokens))
    return frame


def marker_pattern(markers: Iterable[str]) -> str:
    """Finds a marker anywhere if it starts with a sign (``###``), else where a line starts (``Question:``)."""
    signs = [marker for marker in markers if not marker[0].isalnum()]
    words = [marker for marker in markers if marker[0].isalnum()]
    patterns = [_any_of(signs)] if signs else []
    return "|".join([*patterns, *([rf"(?m:^\s*(?:{_any_of(words)}))"] if words else [])])


def _any_of(texts: Iterable[str]) -> str:
    """RE2 and Python both read these escapes."""
    return "|".join(re.escape(text) for text in sorted(set(texts), key=len, reverse=True))


def _found(table: pa.Table, columns: tuple[str, ...], pattern: str) -> list[str]:
    """Where the pattern stands in a row, such as ``instruction has '### RESPONSE:'``; "" where it does not.

    Arrow looks through all rows; Python only through those that have it.
    """
    found = [""] * len(table)
    if not pattern:
        return found
    for column in reversed(columns):  # the first column is named where both have it
        hits = pc.indices_nonzero(pc.match_substring_regex(table[column], pattern)).to_pylist()
        for position, text in zip(hits, table[column].take(pa.array(hits, pa.int64())).to_pylist(), strict=True):
            match = re.search(pattern, text)
            found[position] = f"{column} has {match[0].strip() if match else pattern}"
    return found


def _python_of(completions: pa.ChunkedArray) -> list[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an odd escape sequence is not an error
        return [python_of(text) for text in completions.to_pylist()]


def python_of(text: str) -> tuple[str, str]:
    """Why a text is not Python, with the line, and why it is Python that does nothing; "" where that is not so."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return (f"line {error.lineno}: {error.msg}" if error.lineno else error.msg), ""
    except (ValueError, RecursionError, MemoryError) as error:  # a null character; nesting that is too deep
        return str(error) or "nested too deeply for Python's parser", ""
    if all(isinstance(node, ast.Pass) or _is_inert(node) for node in tree.body):
        return "", "the code does nothing" if tree.body else "there is no code"
    return "", ""


def _is_inert(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, STUB)
