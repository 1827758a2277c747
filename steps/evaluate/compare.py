"""Base against tuned on one set of rows: losses, grades of the answers, what became of the programs."""

from collections import Counter
from dataclasses import dataclass

from datasets import Dataset

from steps.evaluate.distributions import distribution
from steps.evaluate.execute import PASSES, RUNS, Execution, execute
from steps.evaluate.generate import Answer
from steps.evaluate.grade import GRADES, grade
from steps.evaluate.losses import RowLoss
from steps.evaluate.report import Figure, Sample, SetReport, Verdicts
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.statistics import compare_losses, compare_shares


@dataclass(frozen=True)
class Asked:
    """A set's rows with what both models made of them; lists are base's, then tuned's."""

    name: str
    rows: Dataset  # that were answered
    losses: list[list[RowLoss]]
    answers: list[list[Answer]]


def compared(asked: Asked, confidence: float, limits: Limits | None) -> SetReport:
    """The figures of one set; programs run where there are limits for them."""
    base, tuned = ([grade(answer) for answer in side] for side in asked.answers)
    texts = [[answer.text for answer in side] for side in asked.answers]
    execution = execute(asked.rows, texts, limits) if limits else None
    shares = _shares(base, tuned, execution, confidence)
    return SetReport(
        name=asked.name,
        figures=[*compare_losses(asked.losses[0], asked.losses[1], confidence), *shares],
        samples=_samples(asked, base, tuned, execution),
        verdicts=_verdicts(asked.rows, execution),
        loss_tokens=sum(row.tokens for row in asked.losses[0]),
        distributions=(
            distribution("loss of a row's own completion, nats per token", *_per_token(asked.losses)),
            distribution(
                "length of an answer, tokens", *([answer.tokens for answer in side] for side in asked.answers)
            ),
        ),
    )


def _per_token(losses: list[list[RowLoss]]) -> list[list[float]]:
    return [[row.nats / row.tokens for row in side] for side in losses]


def _shares(
    base: list[dict[str, bool]], tuned: list[dict[str, bool]], execution: Execution | None, confidence: float
) -> list[Figure]:
    """A figure for every grade, over the rows that have it; the grades of running are added to the others."""
    names = [*GRADES]
    if execution is not None:
        for grades, verdicts in zip((base, tuned), execution.sides, strict=True):
            for one, verdict in zip(grades, verdicts, strict=True):
                one[RUNS] = verdict.ran
            for index in execution.tested:
                grades[index][PASSES] = verdicts[index].passed
        names += [RUNS, PASSES] if execution.tested else [RUNS]
    pairs = list(zip(base, tuned, strict=True))
    return [
        compare_shares(
            name,
            [one[name] for one, _ in pairs if name in one],
            [other[name] for _, other in pairs if name in other],
            confidence,
        )
        for name in names
    ]


def _verdicts(asked: Dataset, execution: Execution | None) -> Verdicts | None:
    if execution is None:
        return None
    references = list(zip(asked["row_id"], execution.references, strict=True))
    base, tuned = (dict(Counter(verdict.kind for verdict in side).most_common()) for side in execution.sides)
    return Verdicts(
        isolated=execution.isolated,
        programs=sum(map(len, execution.sides)),
        with_tests=sum(verdict is not None for _, verdict in references),
        tested=len(execution.tested),
        untested=[
            (row_id, f"{verdict.kind}: {verdict.detail}")
            for row_id, verdict in references
            if verdict is not None and not verdict.passed
        ],
        base={str(kind): count for kind, count in base.items()},
        tuned={str(kind): count for kind, count in tuned.items()},
    )


def _samples(
    asked: Asked, base: list[dict[str, bool]], tuned: list[dict[str, bool]], execution: Execution | None
) -> list[Sample]:
    verdicts = execution.sides if execution else [[None] * len(asked.rows)] * 2
    losses = [dict(enumerate(side)) for side in _per_token(asked.losses)]  # of other, often more, rows
    return [
        Sample(
            row_id=row["row_id"],
            instruction=row["instruction"],
            reference=row["completion"],
            base_answer=asked.answers[0][index].text,
            tuned_answer=asked.answers[1][index].text,
            base_grades=base[index],
            tuned_grades=tuned[index],
            base_verdict=verdicts[0][index],
            tuned_verdict=verdicts[1][index],
            base_loss=losses[0].get(index),
            tuned_loss=losses[1].get(index),
        )
        for index, row in enumerate(asked.rows)
    ]
