"""Columns are found by name, by default or by configuration, and rows are read through them."""

from collections.abc import Mapping

import pytest

from steps.errors import DataError
from steps.ingest.columns import KNOWN_NAMES, RowTexts, choose_columns, map_row
from steps.ingest.unreadable import UnreadableRow
from steps.resolve.params import Columns


def _map(record: Mapping[str, object], columns: Columns = Columns()) -> RowTexts:  # noqa: B008 - it is frozen
    return map_row(record, choose_columns(columns, list(record), "rows.jsonl", "parameters.data.sources[0]"))


@pytest.mark.parametrize("instruction", KNOWN_NAMES["instruction"])
@pytest.mark.parametrize("completion", KNOWN_NAMES["completion"])
def test_known_names_are_found(instruction: str, completion: str) -> None:
    assert _map({instruction: "Add", completion: "a + b"}) == RowTexts("Add", "a + b")


def test_the_first_known_name_wins() -> None:
    alpaca = {"text": "whole prompt", "instruction": "Sort", "input": "", "output": "sorted(x)"}
    assert _map(alpaca) == RowTexts("Sort", "sorted(x)")


def test_alpaca_input_follows_an_empty_line() -> None:
    assert _map({"instruction": "Sort", "input": "[2, 1]", "output": "[1, 2]"}).instruction == "Sort\n\n[2, 1]"


def test_configured_names_win() -> None:
    columns = Columns(
        instruction="task", completion="solution", tests="checks", group="id", license="rights", input="more"
    )
    record = {
        "instruction": "no",
        "task": "Add",
        "solution": "a + b",
        "checks": "assert add(1, 1) == 2",
        "id": 7,
        "rights": "MIT",
        "more": "two numbers",
    }
    expected = RowTexts("Add\n\ntwo numbers", "a + b", ("assert add(1, 1) == 2",), "7", "MIT")
    assert _map(record, columns) == expected


@pytest.mark.parametrize(
    ("tests", "expected"), [(None, ()), ("", ()), ("assert 1", ("assert 1",)), (["a", "b"], ("a", "b")), ([], ())]
)
def test_tests_are_a_text_or_a_list(tests: object, expected: tuple[str, ...]) -> None:
    assert _map({"prompt": "p", "code": "c", "test_list": tests}).tests == expected


@pytest.mark.parametrize("ours", list(Columns.model_fields))
def test_a_named_column_that_is_missing_lists_what_is_there(ours: str) -> None:
    message = rf"rows\.jsonl: no column 'absent'; it has: prompt, code; mend parameters.*\[0\]\.columns\.{ours}"
    with pytest.raises(DataError, match=message):
        _map({"prompt": "p", "code": "c"}, Columns.model_validate({ours: "absent"}))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"a": "", "code": ""}, r"no column for the instruction \(tried instruction, .*\); it has: a, code; name one"),
        (
            {"prompt": "", "b": ""},
            r"no column for the completion .*parameters\.data\.sources\[0\]\.columns\.completion",
        ),
    ],
)
def test_nothing_to_learn_from_is_refused(record: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _map(record)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": None}, "no instruction: column 'prompt' is null"),
        ({"prompt": ""}, "no instruction: column 'prompt' is empty"),
        ({"code": " \n"}, "no completion: column 'code' holds only white space"),
        ({"prompt": 3}, "column 'prompt' holds a value of type int, not text"),
        ({"code": ["x"]}, "column 'code' holds a value of type list, not text"),
        ({"tests": [1]}, "column 'tests' holds a value of type int, not text"),
        ({"group": 1.5}, "column 'group' holds a value of type float, not text"),
        ({"group": True}, "column 'group' holds a value of type bool, not text"),
        ({"license": {}}, "column 'license' holds a value of type dict, not text"),
        ({"code": "ab\ud800"}, r"column 'code' holds half a surrogate pair \(U\+D800\), .* as its character 3$"),
        ({"prompt": "\0"}, r"column 'prompt' holds NUL \(U\+0000\) as its character 1$"),
        ({"prompt": "a\x1b"}, r"column 'prompt' holds the control character U\+001B as its character 2$"),
        ({"code": "\x85"}, r"column 'code' holds the control character U\+0085 as its character 1$"),
        ({"tests": ["fine", "\0"]}, r"column 'tests' holds NUL \(U\+0000\)"),
        ({"license": "\x0c"}, r"column 'license' holds the control character U\+000C"),
    ],
)
def test_an_unreadable_row_says_why(change: dict[str, object], reason: str) -> None:
    with pytest.raises(UnreadableRow, match=reason):
        _map({"prompt": "p", "code": "c", **change})


def test_an_unreadable_row_says_everything_that_is_wrong() -> None:
    with pytest.raises(UnreadableRow) as caught:
        _map({"prompt": 3, "code": "\0", "tests": {}})
    assert [reason.split(" holds")[0] for reason in caught.value.reasons] == [
        "column 'prompt'",
        "column 'code'",
        "column 'tests'",
    ]


def test_a_column_that_one_row_lacks_is_missing_there() -> None:
    with pytest.raises(UnreadableRow, match="no completion: column 'code' is missing"):
        map_row({"prompt": "p"}, {"instruction": "prompt", "completion": "code"})


def test_line_ends_become_newlines_and_tabs_stay() -> None:
    record = {"text": "one\r\ntwo", "code": "if x:\r\n\ty\rz", "test_list": ["a\r\nb"]}
    assert _map(record) == RowTexts("one\ntwo", "if x:\n\ty\nz", ("a\nb",))


def test_a_row_of_mbpp_keeps_all_its_tests_each_with_its_setup() -> None:
    record = {
        "text": "Write a function to double.",
        "code": "def double(x):\r\n  return 2 * x",
        "task_id": 7,
        "test_setup_code": "two = 2\r\n",
        "test_list": ["assert double(two) == 4", ""],
        "challenge_test_list": ["assert double(two * 2) == 8"],
    }
    tests = ("two = 2\nassert double(two) == 4", "two = 2\nassert double(two * 2) == 8")
    assert _map(record) == RowTexts("Write a function to double.", "def double(x):\n  return 2 * x", tests, "7")


def test_a_column_name_that_cannot_be_printed_is_escaped() -> None:
    with pytest.raises(DataError, match=r"it has: '\\ud800\\n'; name one") as caught:
        _map({"\ud800\n": "x"})
    assert str(caught.value).isprintable()
