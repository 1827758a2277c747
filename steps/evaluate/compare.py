"""Base against tuned on one set of rows: losses, grades of the answers, what became of the programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from steps.evaluate.answer import Answer
from steps.evaluate.ask import Made, Questions
from steps.evaluate.distributions import distribution
from steps.evaluate.execute import PASSES, RUNS, Execution, execute, passed_samples
from steps.evaluate.grade import GRADES, grade
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.report import Figure, Sample, SetReport, Verdicts
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.statistics import compare_losses, compare_means, compare_passes, compare_shares

Grades = list[dict[str, bool]]


@dataclass(frozen=True)
class Asked:
    """A set's rows with what both models made of them, base first; ``again`` is the base's second time, if any."""

    questions: Questions
    sides: tuple[Made, Made]
    again: Made | None = None


def compared(asked: Asked, evaluation: EvaluationParameters, limits: Limits | None) -> SetReport:
    """The figures of one set; programs run where there are limits for them."""
    answers = [side.answers for side in asked.sides]
    execution = _run(asked.questions, answers, limits)
    base, tuned = _graded(asked.questions, answers, execution)
    figures = _figures(*asked.sides, (base, tuned), evaluation.confidence)
    if asked.again is not None:
        figures = _with_noise(figures, noise_floor(asked.questions, asked.sides[0], base, asked.again, limits))
    return SetReport(
        name=asked.questions.name,
        figures=[*figures, *_sampled(asked, evaluation, limits)],
        samples=_samples(asked, base, tuned, execution),
        verdicts=_verdicts(asked.questions, execution),
        loss_tokens=sum(row.tokens for row in asked.sides[0].losses),
        distributions=(
            distribution("loss of a row's own completion, nats per token", *_per_token(asked.sides)),
            distribution("length of an answer, tokens", *([answer.tokens for answer in side] for side in answers)),
        ),
    )


def noise_floor(
    questions: Questions, first: Made, grades: Grades, again: Made, limits: Limits | None
) -> dict[str, float]:
    """How much each figure of one model differs between two times it was asked, over the rows of the second time.

    Args:
        questions: what was asked.
        first: the answers and losses of all rows.
        grades: of the first answers.
        again: those of the first rows.
        limits: of the programs, which run anew too.
    """
    measured, answered = len(again.losses), len(again.answers)
    head = Questions(
        name=questions.name,
        measured=questions.measured.select(range(measured)),
        answered=questions.answered.select(range(answered)),
        references=questions.references and questions.references[:answered],
    )
    (second,) = _graded(head, [again.answers], _run(head, [again.answers], limits))
    before = Made(first.losses[:measured], first.answers[:answered], [])
    figures = _figures(before, again, (grades[:answered], second), confidence=0.95)  # the intervals go unused
    return {figure.name: abs(figure.difference) for figure in figures}


def _with_noise(figures: list[Figure], noise: dict[str, float]) -> list[Figure]:
    return [figure.model_copy(update={"noise": noise.get(figure.name)}) for figure in figures]


def _run(questions: Questions, answers: Sequence[Sequence[Answer]], limits: Limits | None) -> Execution | None:
    if limits is None or questions.references is None:
        return None
    texts = [[answer.text for answer in side] for side in answers]
    return execute(questions.answered, texts, questions.references, limits)


def _graded(questions: Questions, answers: Sequence[Sequence[Answer]], execution: Execution | None) -> list[Grades]:
    """Each side's grades; those of running are added to the others."""
    instructions = list(questions.answered["instruction"])
    sides = [[grade(*both) for both in zip(side, instructions, strict=True)] for side in answers]
    if execution is not None:
        for grades, verdicts in zip(sides, execution.sides, strict=True):
            for one, verdict in zip(grades, verdicts, strict=True):
                one[RUNS] = verdict.ran
            for index in execution.tested:
                grades[index][PASSES] = verdicts[index].passed
    return sides


def _figures(one: Made, other: Made, grades: Sequence[Grades], confidence: float) -> list[Figure]:
    """Losses, a figure for every grade over the rows that have it, and what answers look like."""
    first, second = grades
    return [
        *compare_losses(one.losses, other.losses, confidence),
        *(
            compare_shares(name, shares, [graded[name] for graded in second if name in graded], confidence)
            for name in (*GRADES, RUNS, PASSES)
            if (shares := [graded[name] for graded in first if name in graded])
        ),
        compare_means(
            "length",
            [answer.tokens for answer in one.answers],
            [answer.tokens for answer in other.answers],
            confidence,
            "tokens",
            "neither",
        ),
        compare_means(
            "repetition",
            [answer.repetition for answer in one.answers],
            [answer.repetition for answer in other.answers],
            confidence,
            "share",
            "lower",
        ),
    ]


def _sampled(asked: Asked, evaluation: EvaluationParameters, limits: Limits | None) -> list[Figure]:
    """pass@k of the sampled answers, over the prompts whose tests count."""
    tested, sampling = asked.questions.tested, evaluation.sampling
    if sampling is None or limits is None or not tested:
        return []
    texts = [[[answer.text for answer in prompt] for prompt in side.sampled] for side in asked.sides]
    base, tuned = passed_samples(asked.questions.answered.select(tested), texts, limits)
    return compare_passes(base, tuned, sampling.answers, sampling.pass_at, evaluation.confidence)


def _per_token(sides: Sequence[Made]) -> list[list[float]]:
    return [[row.nats / row.tokens for row in side.losses] for side in sides]


def _verdicts(questions: Questions, execution: Execution | None) -> Verdicts | None:
    if execution is None:
        return None
    references = list(zip(questions.answered["row_id"], execution.references, strict=True))
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


def _samples(asked: Asked, base: Grades, tuned: Grades, execution: Execution | None) -> list[Sample]:
    rows, sides = asked.questions.answered, asked.sides
    verdicts = execution.sides if execution else [[None] * len(rows)] * 2
    losses = [dict(enumerate(side)) for side in _per_token(sides)]  # of other, often more, rows
    return [
        Sample(
            row_id=row["row_id"],
            instruction=row["instruction"],
            reference=row["completion"],
            base_answer=sides[0].answers[index].text,
            tuned_answer=sides[1].answers[index].text,
            base_grades=base[index],
            tuned_grades=tuned[index],
            base_verdict=verdicts[0][index],
            tuned_verdict=verdicts[1][index],
            base_loss=losses[0].get(index),
            tuned_loss=losses[1].get(index),
        )
        for index, row in enumerate(rows)
    ]
