"""Maps the columns of a source to those of a row, and says why a row cannot be read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steps.errors import DataError
from steps.ingest.chat import exchange_of
from steps.ingest.unreadable import UnreadableRow
from steps.resolve.params import Columns

KNOWN_NAMES = {
    "instruction": ("instruction", "question", "prompt", "text"),
    "input": ("input", "context"),
    "completion": ("completion", "output", "response", "answer", "code"),
    "messages": ("messages",),
    "tests": ("tests", "test_list"),
    "challenge_tests": ("challenge_tests", "challenge_test_list"),
    "test_setup": ("test_setup", "test_setup_code"),
    "preamble": ("preamble",),
    "group": ("group", "task_id"),
    "license": ("license",),
}
"""Names tried in this order where the configuration gives none."""
REQUIRED = ("instruction", "completion")

# Control characters other than tab and line ends, and halves of surrogate pairs: no tokenizer was trained on the
# former, and the latter cannot be written as UTF-8.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

# In a test a control character is part of what is checked, such as the escape sequence that a function removes: tests
# are run, not trained on. NUL no Python source may hold.
FORBIDDEN_IN_TESTS = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class RowTexts:
    """What a source says about one row; "" and () where it says nothing. Line ends are "\\n"."""

    instruction: str
    completion: str
    tests: tuple[str, ...] = ()
    group: str = ""
    license: str = ""
    preamble: str = ""


def choose_columns(columns: Columns, available: Sequence[str], where: str, key: str) -> dict[str, str]:
    """The source's own name of each of our columns that it has: ``messages``, or instruction and completion.

    Args:
        columns: names that the configuration gives.
        available: the columns of this file or data set.
        where: the file or data set, for the message.
        key: the source's configuration key, for the message.

    Raises:
        DataError: a named column is missing, or there is nothing to take instruction or completion from.
    """
    chosen = {}
    listed = ", ".join(name if name.isprintable() else ascii(name) for name in available) or "none"
    for ours, known in KNOWN_NAMES.items():
        named: str | None = getattr(columns, ours)
        if named is not None and named not in available:
            raise DataError(f"{where}: no column {named!r}; it has: {listed}; mend {key}.columns.{ours}")
        found = named or next((name for name in known if name in available), None)
        if found is not None:
            chosen[ours] = found
    missing = [ours for ours in REQUIRED if ours not in chosen]
    if columns.messages is None and (not missing or columns.instruction or columns.completion):
        chosen.pop("messages", None)
    if "messages" in chosen:
        return {ours: theirs for ours, theirs in chosen.items() if ours not in {*REQUIRED, "input"}}
    if missing:
        tried = ", ".join(KNOWN_NAMES[missing[0]])
        raise DataError(
            f"{where}: no column for the {missing[0]} (tried {tried}); it has: {listed}; "
            f"name one in {key}.columns.{missing[0]}"
        )
    return chosen


def map_row(record: Mapping[str, object], chosen: Mapping[str, str]) -> RowTexts:
    """The texts of one row.

    Raises:
        UnreadableRow: instruction or completion is missing or empty, a field is not text, a text holds a
            character that no text may hold, or a chat is not one exchange.
    """
    fields = _Fields(record, chosen)
    if "messages" in chosen:
        instruction, completion = fields.exchange()
    else:
        instruction, completion = fields.required("instruction"), fields.required("completion")
        extra = fields.text("input")
        instruction = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    told = (fields.tests(), fields.group(), fields.text("license"), fields.text("preamble"))
    texts = RowTexts(instruction, completion, *told)
    if fields.problems:
        raise UnreadableRow(*fields.problems)
    return texts


@dataclass(slots=True)
class _Fields:
    """The fields of one record by our names, and what is wrong with those that were read."""

    record: Mapping[str, object]
    chosen: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    def text(self, ours: str) -> str:
        """A text; "" where there is none or where it is wrong."""
        column = self.chosen.get(ours)
        value = None if column is None else self.record.get(column)
        return "" if value is None else self.valid(value, f"column {column!r}")

    def required(self, ours: str) -> str:
        """A text that must not be empty."""
        before = len(self.problems)
        text = self.text(ours)
        if (text and not text.isspace()) or len(self.problems) > before:
            return text
        column = self.chosen.get(ours, ours)
        if self.record.get(column) is not None:
            what = "holds only white space" if text else "is empty"
        else:
            what = "is null" if column in self.record else "is missing"
        self.problems.append(f"no {ours}: column {column!r} {what}")
        return ""

    def exchange(self) -> tuple[str, str]:
        """What the user asks and what the assistant answers."""
        column = self.chosen["messages"]
        try:
            question, answer = exchange_of(self.record.get(column), f"column {column!r}")
        except UnreadableRow as reason:
            self.problems.extend(reason.reasons)
            return "", ""
        for speaker, content in (("user", question), ("assistant", answer)):
            if isinstance(content, str) and not content.strip():
                self.problems.append(f"column {column!r}: the {speaker}'s message is empty or only white space")
        return (
            self.valid(question, f"column {column!r}: the user's message"),
            self.valid(answer, f"column {column!r}: the assistant's message"),
        )

    def tests(self) -> tuple[str, ...]:
        """The tests, the harder ones last, each after the code that prepares them."""
        found = [*self.texts("tests"), *self.texts("challenge_tests")]
        setup = self.text("test_setup").rstrip()
        return tuple(f"{setup}\n{test}" for test in found) if setup else tuple(found)

    def texts(self, ours: str) -> list[str]:
        """One text or a list of texts; none where there is none."""
        column = self.chosen.get(ours)
        value = None if column is None else self.record.get(column)
        if value is None:
            return []
        listed = value if isinstance(value, list) else [value]
        where = f"column {column!r}"
        return [text for item in listed if (text := self.valid(item, where, FORBIDDEN_IN_TESTS)).strip()]

    def group(self) -> str:
        """The group; problem numbers are common."""
        value = self.record.get(self.chosen["group"]) if "group" in self.chosen else None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return "" if value is None else self.valid(value, f"column {self.chosen['group']!r}")

    def valid(self, value: object, where: str, forbidden: re.Pattern[str] = FORBIDDEN) -> str:
        """The value as a text with plain line ends; "" where it is none or holds a forbidden character."""
        if not isinstance(value, str):
            self.problems.append(f"{where} holds a value of type {type(value).__name__}, not text")
            return ""
        if found := forbidden.search(value):
            self.problems.append(f"{where} holds {_named(found[0])} as its character {found.start() + 1}")
            return ""
        return value.replace("\r\n", "\n").replace("\r", "\n") if "\r" in value else value


def _named(character: str) -> str:
    code = f"U+{ord(character):04X}"
    if character == "\0":
        return f"NUL ({code})"
    if "\ud800" <= character <= "\udfff":
        return f"half a surrogate pair ({code}), which is not valid Unicode,"
    return f"the control character {code}"
