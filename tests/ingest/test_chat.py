"""A chat is a row where it is one question and one answer; else the reason says what it is."""

import pytest

from steps.errors import DataError
from steps.ingest.columns import RowTexts, choose_columns, map_row
from steps.ingest.unreadable import UnreadableRow
from steps.resolve.params import Columns

USER = {"role": "user", "content": "Add"}
ANSWER = {"role": "assistant", "content": "a + b"}
SYSTEM = {"role": "system", "content": "You write code."}


def _map(messages: object, **columns: str) -> RowTexts:
    chosen = choose_columns(Columns(**columns), ["messages", "license", "task_id"], "chats.jsonl", "key")
    return map_row({"messages": messages, "license": "MIT", "task_id": 3}, chosen)


@pytest.mark.parametrize("messages", [[USER, ANSWER], [SYSTEM, USER, ANSWER], [SYSTEM, SYSTEM, USER, ANSWER]])
def test_one_exchange_is_a_row_without_its_system_messages(messages: object) -> None:
    assert _map(messages) == RowTexts("Add", "a + b", (), "3", "MIT")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "column 'messages' holds a value of type NoneType, not a list of messages"),
        ("Add", "column 'messages' holds a value of type str, not a list of messages"),
        ([], "column 'messages' holds an empty list, not a list of messages"),
        (["Add"], "column 'messages': message 1 is no object with role and content"),
        ([USER, {"role": "assistant"}], "message 2 is no object with role and content"),
        ([{"role": 1, "content": "x"}], "message 1 is no object with role and content"),
        ([USER, {"role": "tool", "content": "x"}, ANSWER], "message 2 has the role 'tool', not system, user or assist"),
        ([USER], "column 'messages' has no message of the assistant"),
        ([SYSTEM, ANSWER], "column 'messages' has no message of the user"),
        ([ANSWER, USER], "column 'messages' begins with the assistant's message, not with the user's"),
        ([USER, ANSWER, USER, ANSWER], r"holds more than one exchange \(4 messages of user and assistant\)"),
        ([USER, USER, ANSWER], r"holds more than one exchange \(3 messages"),
        ([USER, ANSWER | {"content": None}], "the assistant's message holds a value of type NoneType, not text"),
        ([USER, ANSWER | {"content": " "}], "the assistant's message is empty or only white space"),
        ([USER | {"content": "\0"}, ANSWER], r"the user's message holds NUL \(U\+0000\) as its character 1"),
        ([USER | {"content": ""}, ANSWER | {"content": 3}], "user's message is empty.*; .*type int, not text"),
    ],
)
def test_anything_else_says_what_it_is(messages: object, reason: str) -> None:
    with pytest.raises(UnreadableRow, match=reason):
        _map(messages)


@pytest.mark.parametrize(
    ("available", "columns", "expected"),
    [
        (["messages"], {}, {"messages": "messages"}),
        (["messages", "prompt"], {}, {"messages": "messages"}),
        (["messages", "prompt", "completion"], {}, {"instruction": "prompt", "completion": "completion"}),
        (["messages", "prompt", "completion"], {"messages": "messages"}, {"messages": "messages"}),
        (["chat"], {"messages": "chat"}, {"messages": "chat"}),
    ],
)
def test_a_chat_is_read_where_nothing_else_is_whole_or_where_it_is_named(
    available: list[str], columns: dict[str, str], expected: dict[str, str]
) -> None:
    assert choose_columns(Columns(**columns), available, "chats.jsonl", "key") == expected


def test_a_named_instruction_beside_a_chat_still_needs_its_completion() -> None:
    with pytest.raises(DataError, match="no column for the completion"):
        choose_columns(Columns(instruction="prompt"), ["messages", "prompt"], "chats.jsonl", "key")


@pytest.mark.parametrize("name", ["instruction", "input", "completion"])
def test_naming_a_chat_and_another_shape_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name either messages or those columns"):
        Columns(messages="messages", **{name: "x"})
