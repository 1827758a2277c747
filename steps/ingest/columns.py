"""Maps the columns of a source to those of a row, and says why a row cannot be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steps.errors import DataError
from steps.resolve.params import Columns

KNOWN_NAMES = {
    "instruction": ("instruction", "question", "prompt", "text"),
    "input": ("input", "context"),
    "completion": ("completion", "output", "response", "answer", "code"),
    "tests": ("tests", "test_list"),
    "group": ("group",),
    "license": ("license",),
}
"""Names tried in this order where the configuration gives none."""
REQUIRED = ("instruction", "completion")


class UnreadableRow(ValueError):
    """A row that cannot be used; the message is the reason."""


@dataclass(frozen=True)
class RowTexts:
    """What a source says about one row; "" and () where it says nothing."""

    instruction: str
    completion: str
    tests: tuple[str, ...] = ()
    group: str = ""
    license: str = ""


def choose_columns(columns: Columns, available: Sequence[str], where: str, key: str) -> dict[str, str]:
    """The source's own name of each of our columns that it has.

    Args:
        columns: names that the configuration gives.
        available: the columns of this file or data set.
        where: the file or data set, for the message.
        key: the source's configuration key, for the message.

    Raises:
        DataError: a named column is missing, or there is nothing to take instruction or completion from.
    """
    chosen = {}
    listed = ", ".join(available) or "none"
    for ours, known in KNOWN_NAMES.items():
        named: str | None = getattr(columns, ours)
        if named is not None and named not in available:
            raise DataError(f"{where}: no column {named!r}; it has: {listed}; mend {key}.columns.{ours}")
        found = named or next((name for name in known if name in available), None)
        if found is not None:
            chosen[ours] = found
        elif ours in REQUIRED:
            raise DataError(
                f"{where}: no column for the {ours} (tried {', '.join(known)}); it has: {listed}; "
                f"name one in {key}.columns.{ours}"
            )
    return chosen


def map_row(record: Mapping[str, object], chosen: Mapping[str, str]) -> RowTexts:
    """The texts of one row.

    Raises:
        UnreadableRow: instruction or completion is missing or empty, or a field is not text.
    """
    values = {ours: record.get(theirs) for ours, theirs in chosen.items()}
    instruction = _text(values, chosen, "instruction")
    completion = _text(values, chosen, "completion")
    for ours, text in (("instruction", instruction), ("completion", completion)):
        if not text.strip():
            raise UnreadableRow(f"no {ours}: column {chosen.get(ours, ours)!r} is empty or missing")
    extra = _text(values, chosen, "input")
    return RowTexts(
        instruction=f"{instruction}\n\n{extra}" if extra.strip() else instruction,
        completion=completion,
        tests=_texts(values.get("tests"), chosen.get("tests", "")),
        group=_group(values.get("group"), chosen),
        license=_text(values, chosen, "license"),
    )


def _text(values: Mapping[str, object], chosen: Mapping[str, str], ours: str) -> str:
    value = values.get(ours)
    return "" if value is None else _valid(value, chosen[ours])


def _texts(value: object, column: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(_valid(item, column) for item in value)
    text = _valid(value, column)
    return (text,) if text.strip() else ()


def _group(value: object, chosen: Mapping[str, str]) -> str:
    if isinstance(value, int):  # problem numbers are common
        return str(value)
    return "" if value is None else _valid(value, chosen["group"])


def _valid(value: object, column: str) -> str:
    if not isinstance(value, str):
        raise UnreadableRow(f"column {column!r} holds a value of type {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UnreadableRow(f"column {column!r} holds half a surrogate pair, which is not valid Unicode") from None
    return value
