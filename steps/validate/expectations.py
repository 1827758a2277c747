"""Great Expectations: the user's rules by name, checked before a run, and the rows that break a rule."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from steps.validate.columns import COUNTS, POSITION, TEXTS

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.expectations.expectation import Expectation

COMPARES_ROWS = {
    "ExpectColumnValuesToBeUnique",
    "ExpectCompoundColumnsToBeUnique",
    "ExpectColumnValuesToBeIncreasing",
    "ExpectColumnValuesToBeDecreasing",
    "ExpectColumnValueZScoresToBeLessThan",
    "ExpectColumnValuesToNotBeOutliers",
}
"""They name bad rows, but only after all rows were seen, and rows come in batches."""

NOT_ARGUMENTS = {"mostly", "library_metadata"}
"""``max_share`` says what ``mostly`` would say."""

COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")


def build(name: str, arguments: Mapping[str, Any]) -> "Expectation":
    """The expectation, after it was tried on two rows.

    Raises:
        ValueError: there is none of this name, it does not take these arguments, rows have no such column, or
            Great Expectations cannot judge it on rows in memory. The message starts with the key that is wrong.
    """
    with quiet():
        import great_expectations.expectations as every
        from great_expectations.compatibility.pydantic import ValidationError

        names = [known for known in dir(every) if known.startswith("Expect") and known != "Expectation"]
        if name not in names:
            raise ValueError(f"expect {name!r} is no expectation of Great Expectations{_nearest(name, names)}")
        kind: type[Expectation] = getattr(every, name)
        _require_known(name, kind, arguments)
        try:
            expectation = kind(**arguments)
        except ValidationError as error:
            raise ValueError(_in_words(name, arguments, error.errors()[0])) from error
        _require_columns(name, arguments)
        failure = _failure(batch_of(_sample()), expectation)
    if failure:
        raise ValueError(f"expect {name} cannot be judged with these arguments: {failure}")
    return expectation


def judges_rows(name: str) -> bool:
    """Whether an expectation judges each row by itself, so that it can say which rows are bad."""
    import great_expectations.expectations as every
    from great_expectations.expectations.expectation import (
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    kinds = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
    return name not in COMPARES_ROWS and issubclass(getattr(every, name), kinds)


def columns_of(arguments: Mapping[str, Any]) -> list[str]:
    """The columns that an expectation's arguments name."""
    given = [arguments[name] for name in COLUMN_ARGUMENTS if name in arguments]
    return [name for value in given for name in (value if isinstance(value, list | tuple) else [value])]


def _require_known(name: str, kind: "type[Expectation]", arguments: Mapping[str, Any]) -> None:
    from great_expectations.expectations.expectation import BatchExpectation

    fields = [field for field in kind.__fields__ if field not in {*BatchExpectation.__fields__, *NOT_ARGUMENTS}]
    for argument in arguments:
        if argument not in fields:
            hint = "; use action error with max_share" if argument == "mostly" else _nearest(argument, fields)
            raise ValueError(f"{argument} is no argument of {name}{hint} (it takes {', '.join(fields)})")


def _in_words(name: str, arguments: Mapping[str, Any], finding: Mapping[str, Any]) -> str:
    argument = finding["loc"][0]
    if argument not in arguments:
        return f"{argument} is missing; {name} needs it"
    return f"{argument} cannot be {arguments[argument]!r}: {finding['msg']}"


def _require_columns(name: str, arguments: Mapping[str, Any]) -> None:
    valid = [*TEXTS, *COUNTS]
    for argument in COLUMN_ARGUMENTS:
        for column in columns_of({argument: arguments[argument]} if argument in arguments else {}):
            if column not in valid:
                hint = _nearest(str(column), valid)
                raise ValueError(f"{argument} {column!r} is no column of rows{hint} (they have {', '.join(valid)})")
    if not columns_of(arguments) and not name.startswith("ExpectTableRowCount"):
        raise ValueError(f"expect {name} names no column, and the columns of rows are always the same")
    if "row_condition" in arguments and not judges_rows(name):
        raise ValueError(f"row_condition must go: {name} judges whole columns, of all rows that are kept")


def _nearest(name: str, valid: Sequence[str]) -> str:
    close = get_close_matches(name, valid, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _sample() -> "pd.DataFrame":
    import pandas as pd

    texts = {name: ["def f():\n    return 1", "x = 2"] for name in TEXTS}
    return pd.DataFrame({**texts, **{name: [3, 5] for name in COUNTS}, POSITION: [0, 1]})


def _failure(batch: "Batch", expectation: "Expectation") -> str:
    """Why an expectation cannot be judged on this batch, on one line; "" if it can."""
    try:
        return _exception_of(judged(batch, expectation))
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]


def _exception_of(outcome: "ExpectationValidationResult") -> str:
    """The last line of what an expectation raised inside Great Expectations, which keeps it in its result."""
    info = outcome.exception_info or {}
    for found in (info, *info.values()):
        if isinstance(found, dict) and found.get("raised_exception"):
            lines = str(found["exception_traceback"]).strip().splitlines()
            return lines[-1].rpartition("exceptions.")[2].removeprefix("MetricResolutionError: ")
    return ""


def judged(batch: "Batch", expectation: "Expectation") -> "ExpectationValidationResult":
    """The result with the position of every row that breaks the expectation."""
    return batch.validate(
        expectation,
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [POSITION]},
    )


def bad_positions(batch: "Batch", expectation: "Expectation", name: str) -> list[int]:
    """Positions of the rows that break an expectation that judges rows; ``name`` is the rule's."""
    outcome = judged(batch, expectation)
    if "unexpected_index_list" not in outcome.result:
        if not outcome.success:  # it failed itself, which Great Expectations reports as a bad result
            raise RuntimeError(f"rule {name} could not be judged: {_exception_of(outcome)}")
        return []
    return sorted(int(bad[POSITION]) for bad in outcome.result["unexpected_index_list"] or [])


def whole_outcome(batch: "Batch", expectation: "Expectation", name: str) -> tuple[bool, str]:
    """Whether an expectation about whole columns is met, and what was observed."""
    outcome = judged(batch, expectation)
    if raised := _exception_of(outcome):
        raise RuntimeError(f"rule {name} could not be judged: {raised}")
    found = outcome.result
    if "unexpected_count" in found:
        return bool(outcome.success), f"{found['unexpected_count']} rows against it"
    observed = found.get("observed_value", "")
    return bool(outcome.success), f"{observed:.6g}" if isinstance(observed, float) else str(observed)[:200]


def batch_of(frame: "pd.DataFrame") -> "Batch":
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
def quiet() -> Iterator[None]:
    """Great Expectations logs pages of INFO when it is imported and used; what it finds is in our report."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
