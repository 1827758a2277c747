"""The data rules as Great Expectations, and which rows break them."""

import ast
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.validate.params import ValidationParameters

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.datasource.fluent.interfaces import Batch
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
    detail: Callable[[Mapping[str, object]], str]


def content_rules(validation: ValidationParameters) -> list[Rule]:
    """The rules that look at one row alone."""
    from great_expectations.expectations.core.expect_column_values_to_be_between import (
        ExpectColumnValuesToBeBetween,
    )
    from great_expectations.expectations.core.expect_column_values_to_be_in_set import (
        ExpectColumnValuesToBeInSet,
    )
    from great_expectations.expectations.core.expect_column_values_to_not_match_regex import (
        ExpectColumnValuesToNotMatchRegex,
    )

    low, high = validation.min_completion_chars, validation.max_completion_chars
    rules = [
        Rule(
            "instruction_length",
            f"the instruction has 1 to {validation.max_instruction_chars} characters without outer spaces",
            ExpectColumnValuesToBeBetween(
                column="instruction_chars", min_value=1, max_value=validation.max_instruction_chars
            ),
            lambda row: f"{row['instruction_chars']} characters",
        ),
        Rule(
            "completion_length",
            f"the completion has {low} to {high} characters without outer spaces",
            ExpectColumnValuesToBeBetween(column="completion_chars", min_value=low, max_value=high),
            lambda row: f"{row['completion_chars']} characters",
        ),
    ]
    if validation.completion_parses:
        rules.append(
            Rule(
                "completion_parses",
                "the completion is valid Python",
                ExpectColumnValuesToBeInSet(column="syntax_error", value_set=[""]),
                lambda row: str(row["syntax_error"]),
            )
        )
    if validation.no_markdown_fence:
        rules.append(
            Rule(
                "no_markdown_fence",
                "no line of the completion starts with a ``` fence",
                ExpectColumnValuesToNotMatchRegex(column="completion", regex=FENCE),
                lambda row: "a line starts with ```",
            )
        )
    if validation.allowed_licenses:
        rules.append(
            Rule(
                "license_allowed",
                f"the licence is one of {', '.join(validation.allowed_licenses)}",
                ExpectColumnValuesToBeInSet(column="license", value_set=list(validation.allowed_licenses)),
                lambda row: str(row["license"] or "the source states none"),
            )
        )
    return rules


def uniqueness_rule() -> Rule:
    """The rule that compares rows: of rows with equal texts the first is kept."""
    from great_expectations.expectations.core.expect_column_values_to_be_in_set import (
        ExpectColumnValuesToBeInSet,
    )

    return Rule(
        "row_is_unique",
        "no earlier row that is kept has the same instruction and completion",
        ExpectColumnValuesToBeInSet(column="same_as", value_set=[""]),
        lambda row: f"same texts as {row['same_as']}",
    )


def with_derived_columns(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The frame with columns that rules judge: lengths without outer spaces, and the syntax error or ""."""
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
        return f"line {error.lineno}: {error.msg}" if error.lineno else error.msg
    except (
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # a null character; nesting that the parser gives up on
        return str(error) or "nested too deeply for Python's parser"
    return ""


def broken_rules(frame: "pd.DataFrame", rules: list[Rule]) -> dict[str, list[int]]:
    """For each rule the positions of the rows that break it, found by Great Expectations."""
    with _quiet():
        batch = _batch(frame)
        return {rule.name: _bad_positions(batch, rule) for rule in rules}


def _bad_positions(batch: "Batch", rule: Rule) -> list[int]:
    outcome = batch.validate(
        rule.expectation,
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [POSITION]},
    )
    if "unexpected_index_list" in outcome.result:
        return sorted(int(bad[POSITION]) for bad in outcome.result["unexpected_index_list"] or [])
    if not outcome.success:  # the expectation itself failed, which Great Expectations reports as a bad result
        raise RuntimeError(f"rule {rule.name} could not be judged: {outcome.exception_info}")
    return []


def _batch(frame: "pd.DataFrame") -> "Batch":
    """The frame in a context that lives in memory alone, without progress bars or a documentation site."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
    )
    context = gx.get_context(mode="ephemeral", project_config=config)
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
