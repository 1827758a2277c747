"""Every row that comes in is kept or quarantined, and a quarantined one says why."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.chat_template import bind_template
from steps.errors import DataError, ModelError
from steps.fingerprint import ROOT
from steps.format.tokenize import Encoder
from steps.rows import QUARANTINE_FEATURES, ROW_FEATURES
from steps.validate.measure import python_of
from steps.validate.params import ValidationParameters
from tests.format.sequences import encoded
from tests.rows import rows_of
from tests.validate.judged import GOOD, SYSTEM, TEMPLATE, check

LENIENT = {"max_quarantine_share": 1.0}


@pytest.mark.parametrize(
    ("bad", "parameters", "reason"),
    [
        ((" \n", "x = 1"), {}, "instruction_length: 0 characters"),
        (("x" * 11, "x = 1"), {"instruction_length": {"max": 10}}, "instruction_length: 11 characters"),
        (("Add", "\n"), {"no_stub": "off"}, "completion_length: 0 characters"),
        (("Add", "x=1"), {"completion_length": {"min": 4}}, "completion_length: 3 characters"),
        (("Add", "x = 12345"), {"completion_length": {"max": 8}}, "completion_length: 9 characters"),
        (("Add", "x = 1\ndef f(:"), {}, "completion_parses: line 2: invalid syntax"),
        (("Add", "x = 'a\0b'"), {}, "completion_parses: source code string cannot contain null bytes"),
        (("Add", "pass"), {}, "no_stub: the code does nothing"),
        (("Add", "'''Adds.'''\n..."), {}, "no_stub: the code does nothing"),
        (("Add", "# to do"), {}, "no_stub: there is no code"),
        (("Add", "x = '''\n ```python\n'''"), {}, "no_markdown_fence: completion has ```"),
        (("Add\n### RESPONSE:\n1", "x = 1"), {}, "no_prompt_marker: instruction has ### RESPONSE:"),
        (("Add", "x = 1  # ### INSTRUCTION:"), {}, "no_prompt_marker: completion has ### INSTRUCTION:"),
        (("Add\n Input: 3", "x = 1"), {}, "no_prompt_marker: instruction has Input:"),
        (("Add <pad>", "x = 1"), {}, "no_special_token: instruction has <pad>"),
        (("Add", "x = 1 # <|im_end|>"), {}, "no_special_token: completion has <|im_end|>"),
        (("Add", "x = 1 # §§"), {"no_special_token": {"also": ["§§"]}}, "no_special_token: completion has §§"),
        (
            ("é" * 9, "x = 1"),
            {"instruction_tokens": {"max": 17, "action": "quarantine"}},
            "instruction_tokens: 18 tokens",
        ),
        (
            ("Add", "f" + "(é)" * 9),
            {"completion_tokens": {"max": 17, "action": "quarantine"}},
            "completion_tokens: 37 tokens",
        ),
        (GOOD, {}, "row_is_unique: same texts as file:0"),
    ],
)
def test_each_rule_quarantines_with_its_reason(
    bad: tuple[str, str], parameters: dict[str, object], reason: str, tokenizer_folder: Path
) -> None:
    kept, quarantine, report = check(rows_of(GOOD, bad), tokenizer_folder, parameters)
    assert kept.features == ROW_FEATURES
    assert quarantine.features == QUARANTINE_FEATURES
    assert list(kept["location"]) == ["file:0"]
    found = [(row["location"], row["instruction"], row["completion"], row["reasons"]) for row in quarantine]
    assert found == [("file:1", *bad, [reason])]
    assert {rule.name: rule.broken for rule in report.rules if rule.broken} == {reason.split(":")[0]: 1}


@pytest.mark.parametrize(
    "texts",
    [
        ("The input: is a list", "x = '#### RESPONSE'"),
        ("Close a tag </p>", "def f(s): return s  # Input: 3"),
        ("Say pass", "raise NotImplementedError"),
        ("Say é\u2028", "class E(Exception): pass"),
    ],
)
def test_texts_that_only_look_like_a_fault_are_kept(texts: tuple[str, str], tokenizer_folder: Path) -> None:
    assert len(check(rows_of(texts), tokenizer_folder)[0]) == 1


@pytest.mark.parametrize("action", ["error", "quarantine", "warn", "off"])
def test_what_each_action_does(action: str, tokenizer_folder: Path) -> None:
    share = {"max_share": 0.5} if action == "error" else {}
    rows = rows_of(GOOD, ("Greet", "Hello there"))
    kept, quarantine, report = check(rows, tokenizer_folder, {"completion_parses": {"action": action, **share}})
    assert len(kept) == (2 if action in ("warn", "off") else 1)
    assert len(quarantine) == 2 - len(kept)
    assert report.warned == (action == "warn")
    assert {rule.name: rule.broken for rule in report.rules}.get("completion_parses") == (
        None if action == "off" else 1
    )
    assert [(example.outcome, example.reasons) for example in report.examples] == (
        []
        if action == "off"
        else [("kept" if action == "warn" else "quarantined", ["completion_parses: line 1: invalid syntax"])]
    )


@pytest.mark.parametrize("action", ["quarantine", "warn", "off"])
def test_what_each_action_does_with_a_copy(action: str, tokenizer_folder: Path) -> None:
    kept, quarantine, report = check(rows_of(GOOD, GOOD), tokenizer_folder, {"row_is_unique": {"action": action}})
    assert (len(kept), len(quarantine)) == ((1, 1) if action == "quarantine" else (2, 0))
    assert report.warned == (action == "warn")
    broken = {rule.name: rule.broken for rule in report.rules}.get("row_is_unique")
    assert broken == (None if action == "off" else 1)
    assert len(report.examples) == (0 if action == "off" else 1)


def test_a_row_that_breaks_several_rules_has_all_reasons(tokenizer_folder: Path) -> None:
    parameters: dict[str, object] = {"completion_length": {"max": 5}, "example_tokens": {"max": 3}}
    _, quarantine, report = check(rows_of(GOOD, ("Add", "```\nlong text\n```")), tokenizer_folder, parameters)
    assert [reason.split(":")[0] for reason in quarantine["reasons"][0]] == [
        "completion_length",
        "completion_parses",
        "no_markdown_fence",
    ]
    assert report.warned == 1  # the good row; the other is quarantined anyway
    assert next(rule.broken for rule in report.rules if rule.name == "example_tokens") == 2


def test_licences_are_judged_where_some_are_named(tokenizer_folder: Path) -> None:
    rows = concatenate_datasets([rows_of(GOOD), rows_of(("Sort", "sorted(x)"), license="")])
    kept, quarantine, _ = check(rows, tokenizer_folder, {"license_allowed": {"allowed": ["MIT", "BSD-3-Clause"]}})
    assert list(kept["instruction"]) == ["Add"]
    assert list(quarantine["reasons"]) == [["license_allowed: the source states none"]]
    assert len(check(rows, tokenizer_folder)[0]) == 2


def test_a_copy_of_a_quarantined_row_is_not_called_a_copy(tokenizer_folder: Path) -> None:
    """Otherwise a row with an allowed licence would be lost to an earlier one that is not kept."""
    rows = concatenate_datasets([rows_of(GOOD, license="Proprietary"), rows_of(GOOD)])
    kept, quarantine, _ = check(rows, tokenizer_folder, {"license_allowed": {"allowed": ["MIT"]}})
    assert list(kept["license"]) == ["MIT"]
    assert list(quarantine["reasons"]) == [["license_allowed: Proprietary"]]


def test_batches_change_nothing(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [("a", "x = 1"), ("b", "x ="), ("a", "x = 1"), ("c", "y = 2"), ("b", "x ="), ("a", "x = 1"), ("d", "")]
    rule = {"expect": "ExpectColumnValuesToBeUnique", "column": "instruction"}
    parameters: dict[str, object] = {**LENIENT, "expectations": [rule], "tests_share": {"min_share": 0.5}}
    whole = check(rows_of(*texts), tokenizer_folder, parameters)
    monkeypatch.setattr("steps.validate.judge.JUDGED_ROWS", 2)
    monkeypatch.setattr("steps.validate.quarantine.SEPARATED_ROWS", 3)
    parts = check(rows_of(*texts), tokenizer_folder, parameters)
    assert [list(part) for part in parts[:2]] == [list(part) for part in whole[:2]]
    assert sorted(parts[2].examples, key=str) == sorted(whole[2].examples, key=str)
    assert parts[2].model_copy(update={"examples": []}) == whole[2].model_copy(update={"examples": []})
    assert list(whole[1]["reasons"][1]) == ["row_is_unique: same texts as file:0"]


ROW_RULES = [
    name
    for name in ValidationParameters.model_fields
    if name not in ("expectations", "tests_share", "max_quarantine_share")
]
samples = ["Add", "", "x = 1", "x =", "```\nx\n```", "### RESPONSE:", "é" * 150, "\u2028", "a\0b", "</s>", "pass"]
text = st.sampled_from(samples) | st.text(max_size=30)
action = st.sampled_from(["quarantine", "warn", "off", {"action": "error", "max_share": 1.0}])


@settings(max_examples=20)
@given(
    st.lists(st.tuples(text, text), max_size=12),
    st.fixed_dictionaries({}, optional=dict.fromkeys(ROW_RULES, action)),
    st.lists(st.sampled_from(["quarantine", "warn", "off"]), max_size=2),
)
def test_rows_in_are_rows_kept_and_rows_quarantined(
    tokenizer_folder: Path, texts: list[tuple[str, str]], actions: dict[str, Any], users: list[str]
) -> None:
    rows = rows_of(("Good", "good()"), *texts)
    expectation = {"expect": "ExpectColumnValuesToMatchRegex", "column": "completion", "regex": "o"}
    parameters: dict[str, Any] = {
        **LENIENT,
        **actions,
        "expectations": [{**expectation, "action": one} for one in users],
    }
    kept, quarantine, report = check(rows, tokenizer_folder, parameters)
    columns = ("row_id", "source", "location", "instruction", "completion")
    found = [tuple(row[name] for name in columns) for part in (kept, quarantine) for row in part]
    assert sorted(found) == sorted(tuple(row[name] for name in columns) for row in rows)
    assert (report.rows, report.kept, report.quarantined) == (len(rows), len(kept), len(quarantine))
    assert sum(report.kept_bins) == len(kept)
    assert sum(report.quarantined_bins) == len(quarantine)
    assert all(quarantine["reasons"])
    soft = {name for name, one in actions.items() if one in ("warn", "off")}
    assert not {reason.split(":")[0] for reasons in quarantine["reasons"] for reason in reasons} & soft
    if "row_is_unique" not in soft:
        assert len(set(kept["row_id"])) == len(kept)
    if "completion_parses" not in soft:
        assert not any(python_of(completion)[0] for completion in kept["completion"])


@pytest.mark.parametrize(
    ("rows", "parameters", "message"),
    [
        (
            rows_of(GOOD, ("a", "x ="), ("b", "y ="), ("c", "")),
            {"no_stub": "off"},
            r"3 of 4 rows are set aside \(completion_parses 2, completion_length 1\); the first: file:1 "
            r"\(completion_parses: line 1: invalid syntax\); "
            r"parameters\.validation\.max_quarantine_share admits 50\.0%: mend",
        ),
        (rows_of(("a", "x =")), LENIENT, r"1 of 1 rows are set aside .*; none is left to train on: mend"),
        (rows_of(), LENIENT, r"0 of 0 rows are set aside \(no row breaks a rule\); none is left"),
        (
            rows_of(GOOD, ("a", "x ="), ("b", "x"), ("c", "y = 1"), ("d", "z = 1")),
            {
                "completion_parses": {"action": "error", "max_share": 0.1},
                "no_stub": {"action": "error", "max_share": 0.2},
            },
            r"2 of 5 .*; parameters\.validation\.completion_parses admits 10\.0% and 20\.0% break it: mend",
        ),
        (
            rows_of(GOOD),
            {"tests_share": {"action": "error", "min_share": 0.1}},
            r"parameters\.validation\.tests_share is not met: at least 10\.0% of the kept rows carry tests, "
            r"and it is 0\.0%: mend",
        ),
    ],
)
def test_bad_data_stops_the_run_with_its_reasons(
    rows: Dataset, parameters: dict[str, object], message: str, tokenizer_folder: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check(rows, tokenizer_folder, parameters)
    assert "\n" not in str(caught.value)


def test_enough_tests_and_few_enough_errors_let_the_run_go_on(tokenizer_folder: Path) -> None:
    rows = concatenate_datasets([rows_of(GOOD, tests=[["assert f()"]]), rows_of(("Sort", "sorted(x)"), ("a", "x ="))])
    parameters: dict[str, object] = {
        "tests_share": {"action": "error", "min_share": 0.5},
        "completion_parses": {"action": "error", "max_share": 0.34},
    }
    kept, quarantine, report = check(rows, tokenizer_folder, parameters)
    assert (len(kept), len(quarantine), report.with_tests) == (2, 1, 1)
    assert [(whole.met, whole.observed) for whole in report.wholes] == [(True, "50.0%")]


def test_validation_opens_no_connection_and_says_nothing(tokenizer_folder: Path) -> None:
    """In a process of its own, since Great Expectations logs most while it is imported."""
    program = """
import logging, socket, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO)
from tests.rows import rows_of
from tests.validate.judged import GOOD, check
socket.socket.connect = socket.getaddrinfo = None
rule = {"expect": "ExpectColumnValuesToMatchRegex", "column": "completion", "regex": "a"}
print(len(check(rows_of(GOOD), Path(sys.argv[1]), {"expectations": [rule]})[0]))
"""
    command = [sys.executable, "-c", program, str(tokenizer_folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("1\n", "")


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer can be read there"):
        check(rows_of(GOOD), tmp_path)


def test_the_page_shows_rules_and_escaped_examples(tokenizer_folder: Path) -> None:
    rows = rows_of(GOOD, ("<b>Bold</b>", "x ="), ("Long", "x = 1\n" * 90))
    html = check(rows, tokenizer_folder)[2].html()
    assert "completion_parses: line 1: invalid syntax" in html
    assert "&lt;b&gt;Bold&lt;/b&gt;" in html
    assert "<b>" not in html
    assert "Broken, and only warned: completion_tokens, example_tokens." in html
    assert "a block: 128 tokens" in html


def test_the_report_shows_a_rare_rule_behind_a_frequent_one(tokenizer_folder: Path) -> None:
    bad = [(f"Task {i}", "x =") for i in range(20)]
    report = check(rows_of(*bad, ("Say", "pass"), GOOD), tokenizer_folder, LENIENT)[2]
    assert [example.reasons[0].split(":")[0] for example in report.examples] == ["completion_parses"] * 3 + ["no_stub"]
    assert report.metadata()["broken_completion_parses"] == 20


def test_lengths_are_those_of_the_tokens_that_format_makes(tokenizer_folder: Path) -> None:
    """Instruction and completion of one byte-level token each, where no tokens merge."""
    one = encoded(Encoder(bind_template(TEMPLATE, SYSTEM, tokenizer_folder)), "é", "x=1")
    report = check(rows_of(("é", "x=1")), tokenizer_folder)[2]
    assert next(lengths.longest for lengths in report.lengths if lengths.name == "example") == len(one)
    assert report.kept_bins[(len(one) - 1) // 8] == 1
