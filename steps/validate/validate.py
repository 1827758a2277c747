"""Checks every row against the rules and keeps the good ones."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from steps.errors import DataError
from steps.rows import dataset_of
from steps.validate.expectations import batch_of, quiet, whole_outcome
from steps.validate.judge import Findings, findings_for, reasons_in_batches
from steps.validate.params import ValidationParameters
from steps.validate.prompt import Prompt
from steps.validate.quarantine import REASONS, separate
from steps.validate.report import RuleResult, TokenLengths, ValidationReport, WholeResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 32
"""Bins of the histogram, over twice the block's length."""


def validate_rows(
    rows: Dataset, validation: ValidationParameters, prompt: Prompt
) -> tuple[Dataset, Dataset, ValidationReport]:
    """Divide the rows into those that are kept and those that break a rule that sets aside.

    Args:
        rows: the columns of ``steps.rows.ROW_FEATURES``.
        validation: the rules and their actions.
        prompt: the prompt that the run trains.

    Returns:
        Kept rows, quarantined rows with all their reasons (``QUARANTINE_FEATURES``), and the report; kept and
        quarantined together are the rows that came in.

    Raises:
        DataError: no row is kept, a rule with action ``error`` is broken beyond its share, or more rows than
            ``max_quarantine_share`` are quarantined.
    """
    with quiet():
        findings = findings_for(validation, prompt)
        reasons = dataset_of(reasons_in_batches(rows, validation, prompt, findings), REASONS)
        kept, quarantine = separate(rows, reasons)
        report = _report(findings, validation, prompt, kept, quarantine)
    _refuse_bad_data(report, validation)
    return kept, quarantine, report


def _report(
    findings: Findings, validation: ValidationParameters, prompt: Prompt, kept: Dataset, quarantine: Dataset
) -> ValidationReport:
    good = np.concatenate([np.zeros(0, dtype=bool), *findings.kept])
    tokens = {name: np.concatenate([np.zeros(0, dtype=np.int32), *parts]) for name, parts in findings.tokens.items()}
    return ValidationReport(
        rows=len(good),
        kept=len(kept),
        quarantined=len(quarantine),
        warned=findings.warned,
        with_tests=findings.with_tests,
        rules=[
            RuleResult(
                name=rule.name,
                demand=rule.demand,
                action=rule.action,
                limit=rule.max_share if rule.action == "error" else None,
                broken=findings.broken[rule.name],
            )
            for rule in findings.all_rules
        ],
        wholes=[*_wholes(findings), *_tests(validation, findings.with_tests, len(kept))] if len(kept) else [],
        max_length=prompt.max_length,
        frame_tokens=prompt.frame_tokens,
        lengths=[_lengths(name, values, prompt.max_length) for name, values in tokens.items()],
        bin_tokens=2 * prompt.max_length / BINS,
        kept_bins=_bins(tokens["example_tokens"][good], prompt.max_length),
        quarantined_bins=_bins(tokens["example_tokens"][~good], prompt.max_length),
        examples=findings.examples,
    )


def _wholes(findings: Findings) -> Iterator[WholeResult]:
    """Judge the user's rules about whole columns."""
    if not findings.wholes:
        return
    import pandas as pd

    batch = batch_of(pd.concat(findings.columns))
    for rule in findings.wholes:
        met, observed = whole_outcome(batch, rule.expectation, rule.name)
        yield WholeResult(name=rule.name, demand=rule.demand, action=rule.action, met=met, observed=observed)


def _tests(validation: ValidationParameters, with_tests: int, kept: int) -> Iterator[WholeResult]:
    rule = validation.tests_share
    if rule.action != "off":
        yield WholeResult(
            name="tests_share",
            demand=f"at least {rule.min_share:.1%} of the kept rows carry tests",
            action=rule.action,
            met=with_tests >= rule.min_share * kept,
            observed=f"{with_tests / kept:.1%}",
        )


def _lengths(name: str, values: "NDArray[np.int32]", max_length: int) -> TokenLengths:
    median, p95 = np.quantile(values, [0.5, 0.95]) if len(values) else (0.0, 0.0)
    return TokenLengths(
        name=name.removesuffix("_tokens"),
        median=float(median),
        p95=float(p95),
        longest=int(values.max(initial=0)),
        above=int((values > max_length).sum()),
    )


def _bins(values: "NDArray[np.int32]", max_length: int) -> list[int]:
    """Bin i holds i * width < tokens <= (i + 1) * width, so that the limit itself lies left of its line."""
    numbers = np.ceil(values * (BINS / (2 * max_length))).astype(int) - 1
    return [int(count) for count in np.bincount(np.clip(numbers, 0, BINS), minlength=BINS + 1)]


def _refuse_bad_data(report: ValidationReport, validation: ValidationParameters) -> None:
    reasons = [
        f"parameters.validation.{rule.name} admits {rule.limit:.1%} and {rule.broken / report.rows:.1%} break it"
        for rule in report.rules
        if rule.limit is not None and rule.broken > rule.limit * report.rows
    ]
    reasons += [
        f"parameters.validation.{whole.name} is not met: {whole.demand}, and it is {whole.observed}"
        for whole in report.wholes
        if whole.action == "error" and not whole.met
    ]
    limit = validation.max_quarantine_share
    if not report.kept:
        reasons.append("none is left to train on")
    elif report.quarantined > limit * report.rows:
        reasons.append(f"parameters.validation.max_quarantine_share admits {limit:.1%}")
    if not reasons:
        return
    frequent = sorted((rule for rule in report.rules if rule.broken), key=lambda rule: -rule.broken)
    counts = ", ".join(f"{rule.name} {rule.broken}" for rule in frequent)
    bad = [example for example in report.examples if example.outcome == "quarantined"]
    first = f"; the first: {bad[0].location} ({bad[0].reasons[0]})" if bad else ""
    raise DataError(
        f"{report.quarantined} of {report.rows} rows are set aside ({counts or 'no row breaks a rule'}){first}; "
        f"{'; '.join(reasons)}: mend the rows or loosen the rule under parameters.validation"
    )
