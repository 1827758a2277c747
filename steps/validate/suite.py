"""The data rules as Great Expectations, and which rows break them."""

import ast
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.validate.params import ValidationParameters

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

FENCE = r"(?m)^\s*```"
POSITION = "position"
"""Column with a row's place in the data set: how Great Expectations names the rows that break a rule."""


@dataclass(frozen=True)
class Rule:
    """One rule: its name, what it demands, the expectation that judges it, and what a bad row is told."""

    name: str
    demand: str
    expectation: "Expectation"
    detail: Callable[["pd.Series[str]"], str]


def content_rules(validation: ValidationParameters) -> list[Rule]:
    """The rules that look at one row alone."""
    import great_expectations.expectations as gxe

    low, high = validation.min_completion_chars, validation.max_completion_chars
    rules = [
        Rule(
            "instruction_length",
            f"the instruction has 1 to {validation.max_instruction_chars} characters, not counting outer spaces",
            gxe.ExpectColumnValuesToBeBetween(
                column="instruction_chars", min_value=1, max_value=validation.max_instruction_chars
            ),
            lambda row: f"{row['instruction_chars']} characters",
        ),
        Rule(
            "completion_length",
            f"the completion has {low} to {high} characters, not counting outer spaces",
            gxe.ExpectColumnValuesToBeBetween(column="completion_chars", min_value=low, max_value=high),
            lambda row: f"{row['completion_chars']} characters",
        ),
    ]
    if validation.completion_parses:
        rules.append(
            Rule(
                "completion_parses",
                "the completion is valid Python",
                gxe.ExpectColumnValuesToBeInSet(column="syntax_error", value_set=[""]),
                lambda row: row["syntax_error"],
            )
        )
    if validation.no_markdown_fence:
        rules.append(
            Rule(
                "no_markdown_fence",
                "no line of the completion starts with a ``` fence",
                gxe.ExpectColumnValuesToNotMatchRegex(column="completion", regex=FENCE),
                lambda row: "a line starts with ```",
            )
        )
    if validation.allowed_licenses:
        rules.append(
            Rule(
                "license_allowed",
                f"the licence is one of {', '.join(validation.allowed_licenses)}",
                gxe.ExpectColumnValuesToBeInSet(
                    column="license", value_set=list(validation.allowed_licenses)
                ),
                lambda row: row["license"] or "the source states none",
            )
        )
    return rules


def uniqueness_rule() -> Rule:
    """The rule that compares rows: of rows with equal texts the first is kept."""
    import great_expectations.expectations as gxe

    return Rule(
        "row_is_unique",
        "no earlier row that is kept has the same instruction and completion",
        gxe.ExpectColumnValuesToBeInSet(column="same_as", value_set=[""]),
        lambda row: f"same texts as {row['same_as']}",
    )


def with_derived_columns(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The frame with the columns that rules judge: lengths without outer spaces, and the syntax error or ""."""
    return frame.assign(
        instruction_chars=[len(text.strip()) for text in frame["instruction"]],
        completion_chars=[len(text.strip()) for text in frame["completion"]],
        syntax_error=[syntax_error(text) for text in frame["completion"]],
    )


def with_same_as(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The frame with the location of the first row that has the same texts, "" for that first row itself."""
    first = frame.groupby("row_id", sort=False)["location"].transform("first")
    return frame.assign(same_as=first.where(frame.duplicated("row_id"), ""))


def syntax_error(text: str) -> str:
    """Why a text is not Python, with the line; "" if it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape sequence is not an error
            ast.parse(text)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # a NUL character; nesting that the parser gives up on
        return str(error) or "nested too deeply for Python's parser"
    return ""


def broken_rules(frame: "pd.DataFrame", rules: list[Rule]) -> dict[str, list[int]]:
    """For each rule the positions of the rows that break it, found by Great Expectations."""
    import great_expectations as gx

    for rule in rules:
        rule.expectation.meta = {"rule": rule.name}
    with _quiet():
        batch = _batch(frame)
        result = batch.validate(
            gx.ExpectationSuite(name="rules", expectations=[rule.expectation for rule in rules]),
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [POSITION]},
        )
    found: dict[str, list[int]] = {}
    for outcome in result.results:
        name = outcome.expectation_config.meta["rule"]
        if "unexpected_index_list" not in outcome.result and not outcome.success:
            raise RuntimeError(f"rule {name} could not be judged: {outcome.exception_info}")
        found[name] = sorted(int(bad[POSITION]) for bad in outcome.result.get("unexpected_index_list") or [])
    return found


def _batch(frame: "pd.DataFrame"):  # type: ignore[no-untyped-def]  # GX's batch type is not public
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})


@contextmanager
def _quiet() -> Iterator[None]:
    """Great Expectations announces each validation at INFO; what it finds is in our report."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
