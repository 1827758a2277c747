"""Every row that comes in is kept or quarantined, and a quarantined one says why."""

import subprocess
import sys

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.errors import DataError
from steps.fingerprint import ROOT
from steps.rows import QUARANTINE_FEATURES, ROW_FEATURES, row_id_of, table_of
from steps.validate.params import ValidationParameters
from steps.validate.suite import syntax_error
from steps.validate.validate import validate_rows


def rows_of(*texts: tuple[str, str], license: str = "MIT") -> Dataset:
    """Rows with these instructions and completions; row i lies at ``file:i``."""
    return table_of(
        (
            {
                "row_id": row_id_of(instruction, completion),
                "source": "file",
                "location": f"file:{i}",
                "group": instruction,
                "license": license,
                "instruction": instruction,
                "completion": completion,
                "tests": [],
            }
            for i, (instruction, completion) in enumerate(texts)
        ),
        ROW_FEATURES,
    )


GOOD = ("Add", "a + b")
LENIENT = {"max_quarantine_share": 1.0}


@pytest.mark.parametrize(
    ("bad", "parameters", "reason"),
    [
        ((" \n", "1"), {}, "instruction_length: 0 characters"),
        (("x" * 11, "1"), {"max_instruction_chars": 10}, "instruction_length: 11 characters"),
        (("Add", "\n"), {}, "completion_length: 0 characters"),
        (("Add", "1"), {"min_completion_chars": 2}, "completion_length: 1 characters"),
        (("Add", "1" * 11), {"max_completion_chars": 10}, "completion_length: 11 characters"),
        (("Add", "x = 1\ndef f(:"), {}, "completion_parses: line 2: invalid syntax"),
        (("Add", "x = 'a\0b'"), {}, "completion_parses: source code string cannot contain null bytes"),
        (("Add", "'''\n ```python\n'''"), {}, "no_markdown_fence: a line starts with ```"),
        (GOOD, {}, "row_is_unique: same texts as file:0"),
    ],
)
def test_each_rule_quarantines_with_its_reason(
    bad: tuple[str, str], parameters: dict[str, object], reason: str
) -> None:
    validation = ValidationParameters.model_validate(parameters)
    kept, quarantine, report = validate_rows(rows_of(GOOD, bad), validation)
    assert kept.features == ROW_FEATURES
    assert quarantine.features == QUARANTINE_FEATURES
    assert list(kept["location"]) == ["file:0"]
    assert [(row["location"], row["completion"], row["reasons"]) for row in quarantine] == [
        ("file:1", bad[1], [reason])
    ]
    assert {rule.name: rule.broken for rule in report.rules if rule.broken} == {reason.split(":")[0]: 1}


def test_licences_are_judged_where_some_are_named() -> None:
    rows = rows_of(GOOD, ("Sort", "sorted(x)"))
    licenses = ["MIT", ""]
    rows = rows.map(lambda row, i: {**row, "license": licenses[i]}, with_indices=True, features=ROW_FEATURES)
    kept, quarantine, _ = validate_rows(rows, ValidationParameters(allowed_licenses=("MIT", "BSD-3-Clause")))
    assert list(kept["instruction"]) == ["Add"]
    assert list(quarantine["reasons"]) == [["license_allowed: the source states none"]]
    assert len(validate_rows(rows, ValidationParameters())[0]) == 2


def test_rules_that_are_off_are_not_judged() -> None:
    validation = ValidationParameters(completion_parses=False, no_markdown_fence=False)
    kept, _, report = validate_rows(rows_of(("Add", "```python\nno python\n```")), validation)
    assert len(kept) == 1
    assert {rule.name for rule in report.rules} == {
        "instruction_length",
        "completion_length",
        "row_is_unique",
    }


def test_a_row_that_breaks_several_rules_has_all_reasons() -> None:
    validation = ValidationParameters(max_completion_chars=5)
    _, quarantine, _ = validate_rows(rows_of(GOOD, ("Add", "```\nlong text\n```")), validation)
    assert [reason.split(":")[0] for reason in quarantine["reasons"][0]] == [
        "completion_length",
        "completion_parses",
        "no_markdown_fence",
    ]


def test_a_copy_of_a_quarantined_row_is_not_called_a_copy() -> None:
    """Otherwise a row with an allowed licence would be lost to an earlier one that is not kept."""
    rows = Dataset.from_list(
        [rows_of(GOOD, license="Proprietary")[0], {**rows_of(GOOD)[0], "location": "file:1"}],
        features=ROW_FEATURES,
    )
    kept, quarantine, _ = validate_rows(rows, ValidationParameters(allowed_licenses=("MIT",)))
    assert list(kept["location"]) == ["file:1"]
    assert list(quarantine["reasons"]) == [["license_allowed: Proprietary"]]


text = st.sampled_from(["Add", "", "x = 1", "x =", "```\nx\n```", "Sort", "é" * 30, "\u2028", "a\0b"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(text, text), min_size=1, max_size=12), st.booleans(), st.integers(1, 30))
def test_rows_in_are_rows_kept_and_rows_quarantined(texts: list[tuple[str, str]], parses: bool, longest: int) -> None:
    rows = rows_of(("Good", "1"), *texts)
    validation = ValidationParameters(completion_parses=parses, max_completion_chars=longest, max_quarantine_share=1)
    kept, quarantine, report = validate_rows(rows, validation)
    assert sorted([*kept["location"], *quarantine["location"]]) == sorted(rows["location"])
    assert (report.rows, report.kept, report.quarantined) == (len(rows), len(kept), len(quarantine))
    assert len(set(kept["row_id"])) == len(kept)
    assert all(quarantine["reasons"])
    assert all(0 < len(text.strip()) <= longest for text in kept["completion"])
    assert not parses or not any(map(syntax_error, kept["completion"]))


@pytest.mark.parametrize(
    ("rows", "parameters", "message"),
    [
        (
            rows_of(GOOD, ("a", "x ="), ("b", "y ="), ("c", "")),
            {},
            r"3 of 4 rows break a rule \(completion_parses 2, completion_length 1\); the first: file:1 "
            r"\(completion_parses: line 1: invalid syntax\); "
            r"parameters\.validation\.max_quarantine_share admits 50\.0%",
        ),
        (rows_of(("a", "x =")), LENIENT, r"1 of 1 rows break a rule .*; none is left to train on: mend"),
        (rows_of(), LENIENT, r"0 of 0 rows break a rule \(there are no rows\)"),
    ],
)
def test_bad_data_stops_the_run_with_its_reasons(rows: Dataset, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        validate_rows(rows, ValidationParameters.model_validate(parameters))
    assert "\n" not in str(caught.value)


def test_validation_opens_no_connection_and_says_nothing() -> None:
    """In a process of its own, since Great Expectations logs most while it is imported."""
    program = """
import logging, socket
logging.basicConfig(level=logging.INFO)
from steps.validate.params import ValidationParameters
from steps.validate.validate import validate_rows
from tests.validate.test_validate import GOOD, rows_of
socket.socket.connect = socket.getaddrinfo = None
print(len(validate_rows(rows_of(GOOD), ValidationParameters())[0]))
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("1\n", "")


def test_the_page_shows_rules_and_escaped_examples() -> None:
    html = validate_rows(rows_of(GOOD, ("<b>Bold</b>", "x =")), ValidationParameters())[2].html()
    assert "completion_parses: line 1: invalid syntax" in html
    assert "&lt;b&gt;Bold&lt;/b&gt;" in html
    assert "<b>" not in html


def test_the_report_shows_a_rare_rule_behind_a_frequent_one() -> None:
    bad = [(f"Task {i}", "x =") for i in range(20)]
    report = validate_rows(rows_of(*bad, ("Empty", ""), GOOD), ValidationParameters(max_quarantine_share=1))[2]
    assert [example.reasons[0].split(":")[0] for example in report.examples] == [
        "completion_parses",
        "completion_parses",
        "completion_parses",
        "completion_length",
    ]
    assert report.metadata()["broken_completion_parses"] == 20
