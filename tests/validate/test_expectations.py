"""The user's own rules: any expectation by name, refused before the run where it cannot be judged."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.config import Parameter, check_config
from pipelines.origins import resolved_lines
from steps.errors import ConfigError, DataError
from steps.fingerprint import ROOT
from steps.validate.params import ValidationParameters
from tests.rows import rows_of
from tests.validate.judged import GOOD, check

REGEX = {"expect": "ExpectColumnValuesToMatchRegex", "column": "completion", "regex": "^def "}
MEAN = {"expect": "ExpectColumnMeanToBeBetween", "column": "completion_tokens", "max_value": 1}


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        (REGEX, [0]),
        ({**REGEX, "row_condition": "completion_chars > 5"}, []),
        ({"expect": "ExpectColumnValuesToBeBetween", "column": "example_tokens", "max_value": 1}, [0, 1]),
        ({"expect": "ExpectColumnValuesToBeInSet", "column": "license", "value_set": ["MIT"]}, []),
        ({"expect": "ExpectColumnPairValuesToBeEqual", "column_A": "instruction", "column_B": "group"}, []),
        ({"expect": "ExpectSelectColumnValuesToBeUniqueWithinRecord", "column_list": ["instruction", "group"]}, [0, 1]),
    ],
    ids=lambda value: value["expect"] if isinstance(value, dict) else "",
)
def test_a_rule_of_ones_own_says_which_rows_break_it(
    rule: dict[str, Any], broken: list[int], tokenizer_folder: Path
) -> None:
    rows = rows_of(GOOD, ("One", "def one(): return 1"))
    parameters: dict[str, Any] = {"max_quarantine_share": 1, "expectations": [rule]}
    kept, _, report = check(rows, tokenizer_folder, parameters)
    assert len(kept) == 2
    assert report.rules[-2].name == "expectations[0]"
    assert report.rules[-2].broken == len(broken)
    assert sorted(example.location for example in report.examples) == [f"file:{i}" for i in broken]
    if len(broken) == 1:
        parameters = {"expectations": [{**rule, "action": "quarantine"}]}
        _, quarantine, _ = check(rows, tokenizer_folder, parameters)
        assert [reason.split(":")[0] for reason in quarantine["reasons"][0]] == ["expectations[0]"]
        with pytest.raises(DataError, match=r"parameters\.validation\.expectations\[0\] admits 0\.0% and 50\.0% break"):
            check(rows, tokenizer_folder, {"expectations": [{**rule, "action": "error"}]})


@pytest.mark.parametrize(
    ("rule", "observed"),
    [
        (MEAN, "4.5"),
        ({"expect": "ExpectColumnValuesToBeUnique", "column": "group"}, "2 rows against it"),
        ({"expect": "ExpectTableRowCountToBeBetween", "min_value": 3}, "2"),
    ],
    ids=lambda value: value["expect"] if isinstance(value, dict) else "",
)
def test_a_rule_about_a_whole_column_is_judged_over_the_kept_rows(
    rule: dict[str, Any], observed: str, tokenizer_folder: Path
) -> None:
    rows = rows_of(GOOD, ("Add", "def one(): return 1"), ("Add", "x ="))
    kept, _, report = check(rows, tokenizer_folder, {"expectations": [rule]})
    assert len(kept) == 2
    found = report.wholes[0]
    assert (found.name, found.action, found.met) == ("expectations[0]", "warn", False)
    assert found.observed == observed or rule is MEAN
    assert "not met" in report.html()
    with pytest.raises(DataError, match=r"parameters\.validation\.expectations\[0\] is not met: Expect.*, and it is"):
        check(rows, tokenizer_folder, {"expectations": [{**rule, "action": "error"}]})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {**REGEX, "expect": "ExpectColumnValuesToMachRegex"},
            r"expectations\[0\]\.expect: .*'ExpectColumnValuesToMachRegex' is .*; did you mean "
            r"'ExpectColumnValuesToMatchRegex'\?",
        ),
        (
            {"expect": REGEX["expect"], "column": "completion", "regx": "^def "},
            r"expectations\[0\]\.regx: regx is no argument of \w+; did you mean 'regex'\? \(it takes column, ",
        ),
        ({**REGEX, "column": "completon"}, r"expectations\[0\]\.column: .*'completon' .*; did you mean 'completion'\?"),
        ({"expect": REGEX["expect"], "regex": "a"}, r"expectations\[0\]: column is missing; .*Regex needs it"),
        (
            {**REGEX, "regex": "("},
            r"expectations\[0\]\.expect: .*cannot be judged with these arguments: Invalid regular expression",
        ),
        ({**REGEX, "mostly": 0.5}, r"expectations\[0\]\.mostly: .*use action error with max_share"),
        ({**REGEX, "row_condition": "chars > 5"}, r"expectations\[0\]\.expect: .*'chars' is not defined"),
        ({**REGEX, "max_share": 0.1}, r"expectations\[0\]\.max_share: max_share counts only with action error"),
        ({**REGEX, "action": "quarantin"}, r"expectations\[0\]\.action: .*did you mean 'quarantine'\?"),
        ({**MEAN, "action": "quarantine"}, r"expectations\[0\]\.action: .*judges the whole column.* warn or error"),
        ({**MEAN, "action": "error", "max_share": 0.1}, r"expectations\[0\]\.max_share: .*judges the whole column"),
        ({**MEAN, "column": "completion"}, r"expectations\[0\]\.expect: expect \w+ cannot be judged"),
        ({**MEAN, "max_value": "many"}, r"expectations\[0\]\.max_value: max_value cannot be 'many': "),
        (
            {**MEAN, "row_condition": "completion_chars > 5"},
            r"expectations\[0\]\.row_condition: .*judges whole columns",
        ),
        (
            {"expect": "ExpectTableColumnCountToEqual", "value": 3},
            r"expectations\[0\]\.expect: .*columns of rows are always the same",
        ),
        (
            {"expect": "ExpectColumnValuesToMatchLikePattern", "column": "completion", "like_pattern": "%a"},
            r"expectations\[0\]\.expect: .*cannot be judged with these arguments: .*PandasExecutionEngine",
        ),
        ({"column": "completion"}, r"expectations\[0\]\.expect: missing"),
        ("ExpectColumnValuesToMatchRegex", r"expectations\[0\]: needs a mapping of keys"),
    ],
)
def test_a_rule_that_cannot_be_judged_is_an_error_of_the_configuration(
    rule: Any, message: str, config_file: Callable[[str], Path]
) -> None:
    error = config_error(config_file, {"expectations": [rule]})
    lines = [line for line in error.splitlines() if "parameters.validation" in line]
    assert len(lines) == 1
    assert re.search(rf"config\.yaml:\d+: parameters\.validation\.{message}", lines[0]), lines[0]


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ({"completion_parse": "warn"}, "completion_parse: unknown key; did you mean 'completion_parses'?"),
        ({"completion_parses": "warm"}, "completion_parses: 'warm' is not one of"),
        ({"completion_parses": True}, "completion_parses: true is not one of"),
        ({"completion_parses": {"max": 3}}, "completion_parses.max: unknown key"),
        ({"completion_length": {"min": 5, "max": 3}}, "completion_length.min: min 5 is larger than max 3"),
        ({"completion_length": 3}, "completion_length: needs a mapping of keys, not 3"),
        ({"tests_share": {"action": "quarantine"}}, "tests_share.action: 'quarantine' is not one of"),
        ({"example_tokens": {"max": 0}}, "example_tokens.max: 0 is impossible"),
    ],
)
def test_a_wrong_rule_is_an_error_of_the_configuration(
    validation: dict[str, Any], message: str, config_file: Callable[[str], Path]
) -> None:
    assert f"parameters.validation.{message}" in config_error(config_file, validation)


def config_error(config_file: Callable[[str], Path], validation: dict[str, Any]) -> str:
    """What the check of a configuration says about these parameters."""
    text = yaml.safe_dump({"model": {"name": "coder"}, "parameters": {"validation": validation}})
    parameters = {"validation": Parameter(ValidationParameters, required=False)}
    with pytest.raises(ConfigError) as caught:
        check_config(config_file(text), parameters, ["validate"]).require()
    return str(caught.value)


def test_the_short_form_has_its_line_as_origin(config_file: Callable[[str], Path]) -> None:
    path = config_file("model: {name: coder}\nparameters:\n  validation:\n    no_stub: warn\n    row_is_unique: {}\n")
    config = check_config(path, {"validation": Parameter(ValidationParameters, required=False)}, ["validate"])
    lines = {" ".join(line.split()) for line in resolved_lines(config)}
    assert f'validation.no_stub.action: "warn" # {path}:4' in lines
    assert "validation.no_stub.max_share: 0.0 # default" in lines
    assert 'validation.no_markdown_fence.action: "quarantine" # default' in lines


NAMES = (
    "column",
    "column_A",
    "column_list",
    "regex",
    "min_value",
    "value_set",
    "row_condition",
    "quantile_ranges",
    "a",
)
EXPECTATIONS = (
    "ExpectColumnValuesToMatchRegex",
    "ExpectColumnValuesToBeInSet",
    "ExpectColumnQuantileValuesToBeBetween",
    "ExpectColumnMedianToBeBetween",
    "ExpectColumnKLDivergenceToBeLessThan",
    "ExpectCompoundColumnsToBeUnique",
    "ExpectTableRowCountToEqualOtherTable",
    "ExpectQueryResultsToMatchComparison",
)
scalar = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just("completion")
)
value = st.recursive(scalar, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner))


@settings(max_examples=100)
@given(
    st.sampled_from(EXPECTATIONS) | st.text(max_size=5),
    st.sampled_from(["warn", "error", "quarantine"]),
    st.dictionaries(st.sampled_from(NAMES), value, max_size=3),
)
def test_any_arguments_are_accepted_or_refused_on_one_line(expect: str, action: str, arguments: dict[str, Any]) -> None:
    rule = {"expect": expect, "action": action, "column": "completion", **arguments}
    messages: list[str] = []
    try:
        ValidationParameters.model_validate({"expectations": [rule]})
    except ValidationError as error:
        messages = [found["msg"] for found in error.errors()]
    assert not any("\n" in message for message in messages)


def test_an_action_alone_and_yamls_off_are_read() -> None:
    text = "{completion_parses: off, no_stub: {action: off}, tests_share: {action: off}, row_is_unique: warn}"
    read = ValidationParameters.model_validate(yaml.safe_load(text))
    assert [read.completion_parses.action, read.no_stub.action, read.tests_share.action] == ["off"] * 3
    assert read.row_is_unique.action == "warn"


def test_parameters_survive_json() -> None:
    """ZenML stores a step's parameters as JSON and reads them again, so every default is given then."""
    read = ValidationParameters.model_validate({"no_stub": "warn", "expectations": [{**REGEX, "action": "error"}]})
    assert ValidationParameters.model_validate_json(read.model_dump_json()) == read
    assert read.expectations[0].arguments == {"column": "completion", "regex": "^def "}


def test_great_expectations_is_imported_only_for_a_rule_of_ones_own() -> None:
    program = """
import sys
from steps.validate.params import ValidationParameters
ValidationParameters.model_validate({"no_stub": "warn"})
print("great_expectations" in sys.modules, "pandas" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"
