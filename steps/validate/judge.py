"""Judges rows batch by batch, so that memory does not grow with their number."""

import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from datasets import Dataset

from steps.progress import Progress
from steps.validate.columns import POSITION
from steps.validate.expectations import bad_positions, batch_of
from steps.validate.measure import measure
from steps.validate.params import ValidationParameters
from steps.validate.prompt import Prompt
from steps.validate.quarantine import REASONS, reasons_of
from steps.validate.report import RowExample
from steps.validate.suite import JudgedRule, row_rules, unique_rule, whole_rules

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

JUDGED_ROWS = 50_000
"""Rows that Great Expectations judges together; decides memory and speed, never the result."""

EXAMPLES_PER_RULE = 3
SHOWN_CHARS = 600
TOKEN_COLUMNS = ("instruction_tokens", "completion_tokens", "example_tokens")


@dataclass
class Findings:
    """What is remembered of all rows: counts, a few examples, and a few numbers a row."""

    rules: list[JudgedRule]
    unique: JudgedRule
    wholes: list[JudgedRule]
    broken: Counter[str] = field(default_factory=Counter)
    warned: int = 0
    with_tests: int = 0
    shown: Counter[str] = field(default_factory=Counter)
    examples: list[RowExample] = field(default_factory=list)
    first: dict[int, int] = field(default_factory=dict)
    """Position of the first row with a ``row_id`` (as a number) among those that the other rules keep."""
    kept: "list[NDArray[np.bool_]]" = field(default_factory=list)
    tokens: "dict[str, list[NDArray[np.int32]]]" = field(default_factory=lambda: {name: [] for name in TOKEN_COLUMNS})
    columns: "list[pd.DataFrame]" = field(default_factory=list)
    """Of the kept rows, the columns that the user's rules judge as a whole; nothing else is held of them."""

    @property
    def all_rules(self) -> list[JudgedRule]:
        """The rules that count rows."""
        return [*self.rules, self.unique] if self.unique.action != "off" else self.rules


def findings_for(validation: ValidationParameters, prompt: Prompt) -> Findings:
    """Nothing found yet, by the rules of these parameters."""
    return Findings(row_rules(validation, prompt), unique_rule(validation), whole_rules(validation))


def reasons_in_batches(
    rows: Dataset, validation: ValidationParameters, prompt: Prompt, findings: Findings
) -> Iterator[pa.Table]:
    """For each row the reasons why it is set aside, as a table of ``REASONS`` a batch; fills ``findings``."""
    start = 0
    with Progress("validate", len(rows)) as progress:
        for table in rows.with_format("arrow").iter(batch_size=JUDGED_ROWS):
            frame = measure(table, start, validation, prompt)
            reasons = _judge(frame, rows, findings)
            every = [reasons.get(position, []) for position in range(start, start + len(frame))]
            _remember(frame, np.array([not found for found in every], dtype=bool), findings)
            yield pa.table({"reasons": every}, schema=REASONS.arrow_schema)
            start += len(frame)
            gc.collect()  # objects of Great Expectations refer to each other in circles and hold the batch's texts
            if len(rows) > JUDGED_ROWS:  # else it is over in seconds
                progress.advance(start)


def _judge(frame: "pd.DataFrame", rows: Dataset, findings: Findings) -> dict[int, list[str]]:
    """The reasons of the batch's rows by position; rules that only warn are counted."""
    batch = batch_of(frame)
    broken = {rule.name: bad_positions(batch, rule.expectation, rule.name) for rule in findings.rules}
    reasons = reasons_of(frame, [rule for rule in findings.rules if rule.sets_aside], broken)
    if findings.unique.action != "off":
        # A copy counts as one only if the row that it copies is kept: judged among the rows that are left.
        left = _with_same_as(frame[~frame[POSITION].isin(reasons)], rows, findings.first)
        copies = {findings.unique.name: bad_positions(batch_of(left), findings.unique.expectation, "row_is_unique")}
        broken |= copies
        frame = frame.assign(same_as=left["same_as"].reindex(frame.index, fill_value=""))
        if findings.unique.sets_aside:
            reasons |= reasons_of(left, [findings.unique], copies)
    findings.broken.update({name: len(positions) for name, positions in broken.items()})
    warning = {p for rule in findings.all_rules if not rule.sets_aside for p in broken[rule.name]}
    findings.warned += len(warning - reasons.keys())
    _show(frame, broken, reasons, findings)
    return reasons


def _with_same_as(frame: "pd.DataFrame", rows: Dataset, first: dict[int, int]) -> "pd.DataFrame":
    """The frame with the location of the first row that has the same texts, "" for that first row itself."""
    same_as = []
    for row_id, position in zip(frame["row_id"], frame[POSITION], strict=True):
        earlier = first.setdefault(int(row_id, 16), position)
        same_as.append("" if earlier == position else f"same texts as {rows[earlier]['location']}")
    return frame.assign(same_as=same_as)


def _show(
    frame: "pd.DataFrame", broken: dict[str, list[int]], reasons: dict[int, list[str]], findings: Findings
) -> None:
    """Remember the first few rows of each rule, so that a frequent rule does not hide a rare one."""
    chosen: list[int] = []
    for rule in findings.all_rules:
        missing = EXAMPLES_PER_RULE - findings.shown[rule.name]
        first = [position for position in broken[rule.name] if position not in chosen][:missing]
        findings.shown[rule.name] += len(first)
        chosen += first
    bad = frame[frame[POSITION].isin(chosen)]
    told = reasons_of(bad, findings.all_rules, broken)
    by_position = {row[POSITION]: row for row in bad.to_dict("records")}
    findings.examples += [
        RowExample(
            outcome="quarantined" if position in reasons else "kept",
            location=by_position[position]["location"],
            reasons=told[position],
            instruction=by_position[position]["instruction"][:SHOWN_CHARS],
            completion=by_position[position]["completion"][:SHOWN_CHARS],
        )
        for position in sorted(chosen)
    ]


def _remember(frame: "pd.DataFrame", kept: "NDArray[np.bool_]", findings: Findings) -> None:
    """Keep the numbers that the report needs of every row, and whole columns where a rule judges them."""
    findings.kept.append(kept)
    findings.with_tests += int((frame["test_count"].to_numpy()[kept] > 0).sum())
    for name, parts in findings.tokens.items():
        parts.append(frame[name].to_numpy(dtype=np.int32))
    columns = sorted({column for rule in findings.wholes for column in rule.columns})
    if columns:
        findings.columns.append(frame.loc[kept, [*columns, POSITION]])
