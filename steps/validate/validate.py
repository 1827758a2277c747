"""Checks every row against the rules and keeps the good ones."""

from typing import TYPE_CHECKING

from datasets import Dataset

from steps.errors import DataError
from steps.lengths import lengths_of
from steps.validate.params import ValidationParameters
from steps.validate.quarantine import reasons_of, separate
from steps.validate.report import QuarantinedExample, RuleResult, ValidationReport
from steps.validate.suite import (
    POSITION,
    Rule,
    broken_rules,
    content_rules,
    quiet,
    uniqueness_rule,
    with_derived_columns,
    with_same_as,
)

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES_PER_RULE = 3
SHOWN_CHARS = 600


def validate_rows(rows: Dataset, validation: ValidationParameters) -> tuple[Dataset, Dataset, ValidationReport]:
    """Divide the rows into those that meet every rule and those that break one.

    Returns:
        Kept rows, quarantined rows with all their reasons (``QUARANTINE_FEATURES``), and the report; kept and
        quarantined together are the rows that came in.

    Raises:
        DataError: no row is kept, or a larger share than ``max_quarantine_share`` is quarantined.
    """
    columns = ["row_id", "location", "license", "instruction", "completion"]
    frame = rows.select_columns(columns).to_pandas().assign(**{POSITION: range(len(rows))})
    frame = with_derived_columns(frame)
    with quiet():
        rules, broken, reasons = _judge(frame, validation)
    kept, quarantine = separate(rows, reasons)
    report = _report(rules, broken, kept, quarantine)
    _refuse_bad_data(report, validation.max_quarantine_share)
    return kept, quarantine, report


def _judge(
    frame: "pd.DataFrame", validation: ValidationParameters
) -> tuple[list[Rule], dict[str, list[int]], dict[int, list[str]]]:
    """The rules, the positions of the rows that break each, and the reasons by position."""
    rules = content_rules(validation)
    broken = broken_rules(frame, rules)
    reasons = reasons_of(frame, rules, broken)
    # A copy counts as one only if the row that it copies is kept: judged among the rows that are left.
    left = with_same_as(frame[~frame[POSITION].isin(reasons)])
    unique = uniqueness_rule()
    copies = broken_rules(left, [unique])
    reasons |= reasons_of(left, [unique], copies)
    return [*rules, unique], broken | copies, reasons


def _report(rules: list[Rule], broken: dict[str, list[int]], kept: Dataset, quarantine: Dataset) -> ValidationReport:
    return ValidationReport(
        rows=len(kept) + len(quarantine),
        kept=len(kept),
        quarantined=len(quarantine),
        rules=[RuleResult(name=rule.name, demand=rule.demand, broken=len(broken[rule.name])) for rule in rules],
        kept_completion_chars=lengths_of(kept["completion"]),
        quarantined_completion_chars=lengths_of(quarantine["completion"]),
        examples=_examples(quarantine),
    )


def _examples(quarantine: Dataset) -> list[QuarantinedExample]:
    """The first few rows of each rule, so that a frequent rule does not hide a rare one."""
    shown: dict[str, int] = {}
    examples = []
    for row in quarantine:
        first_rule = row["reasons"][0].split(":")[0]
        if shown.setdefault(first_rule, 0) < EXAMPLES_PER_RULE:
            shown[first_rule] += 1
            examples.append(
                QuarantinedExample(
                    location=row["location"],
                    reasons=row["reasons"],
                    instruction=row["instruction"][:SHOWN_CHARS],
                    completion=row["completion"][:SHOWN_CHARS],
                )
            )
    return examples


def _refuse_bad_data(report: ValidationReport, limit: float) -> None:
    if report.kept and report.quarantined <= limit * report.rows:
        return
    frequent = sorted((rule for rule in report.rules if rule.broken), key=lambda rule: -rule.broken)
    counts = ", ".join(f"{rule.name} {rule.broken}" for rule in frequent)
    first = f"; the first: {report.examples[0].location} ({report.examples[0].reasons[0]})" if report.examples else ""
    limit_said = (
        f"parameters.validation.max_quarantine_share admits {limit:.1%}" if report.kept else "none is left to train on"
    )
    raise DataError(
        f"{report.quarantined} of {report.rows} rows break a rule ({counts or 'there are no rows'}){first}; "
        f"{limit_said}: mend the rows or loosen the rule under parameters.validation"
    )
