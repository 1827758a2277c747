"""Which rows each process is asked about, and the results of all in the order of one.

Losses are dealt by whole batches, those that one process would make, so that each loss is the very same. Answers do
not depend on the batch beyond rounding: they are dealt one by one.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TypeVar

from datasets import Dataset
from pydantic import BaseModel

from steps.evaluate.ask import Made, Questions, other_batch_size
from steps.evaluate.examine import Examination, Found, Outcome
from steps.evaluate.losses import BATCH_TOKENS, batches_of
from steps.evaluate.params import EvaluationParameters
from steps.rows import list_lengths

Result = TypeVar("Result")

Dealt = list[list[int]]
"""The numbers of each process's rows, ascending: of like length, rows are taken in their order."""


class Rows(BaseModel):
    """One process's rows of a set, by their numbers."""

    measured: list[int]
    answered: list[int]
    sampled: list[int]  # those of the answered ones whose prompts get sampled answers too


class Share(BaseModel):
    """What one process is asked."""

    sets: list[Rows]
    validation: list[int]
    reference: list[int]
    tasks: list[int]
    again: Rows | None
    production: Rows | None


def deal(asked: Examination, evaluation: EvaluationParameters, processes: int) -> list[Share]:
    """What each process is asked, so that together they are asked everything once."""
    size, sampling = evaluation.batch_size, evaluation.sampling is not None
    sets = [_dealt_set(one, size, processes, sampling=sampling) for one in asked.questions]
    validation = dealt_batches(_lengths(asked.validation), size, processes)
    reference = dealt_batches(_lengths(asked.reference), size, processes)
    again = _dealt_again(asked.again, evaluation, processes) if asked.again else None
    production = _dealt_set(asked.production, size, processes, sampling=sampling) if asked.production else None
    return [
        Share(
            sets=[one[number] for one in sets],
            validation=validation[number],
            reference=reference[number],
            tasks=list(range(number, len(asked.tasks), processes)),
            again=again[number] if again else None,
            production=production[number] if production else None,
        )
        for number in range(processes)
    ]


def _dealt_set(one: Questions, size: int, processes: int, *, sampling: bool) -> list[Rows]:
    sampled = set(one.tested if sampling else [])
    answered = _dealt_prompts(one.answered, processes, sampled)
    return [
        Rows(measured=measured, answered=own, sampled=[row for row in own if row in sampled])
        for measured, own in zip(dealt_batches(_lengths(one.measured), size, processes), answered, strict=True)
    ]


def _dealt_again(one: Questions, evaluation: EvaluationParameters, processes: int) -> list[Rows]:
    """The first rows, of which ``ask_again`` makes other batches, from the last one on."""
    count, size = evaluation.noise_rows, other_batch_size(evaluation.batch_size)
    lengths, answered = _lengths(one.measured)[:count], one.answered.select(range(min(count, len(one.answered))))
    backwards = dealt_batches(lengths[::-1], size, processes, BATCH_TOKENS // 2)
    return [
        Rows(measured=sorted(len(lengths) - 1 - row for row in rows), answered=own, sampled=[])
        for rows, own in zip(backwards, _dealt_prompts(answered, processes, set()), strict=True)
    ]


def dealt_batches(lengths: Sequence[int], size: int, processes: int, tokens: int = BATCH_TOKENS) -> Dealt:
    """Every ``processes``-th batch of each process; given its rows alone, ``batches_of`` makes the same ones again.

    It does because all batches but the last are full, and a batch's size follows from its first row.
    """
    batches = list(batches_of(lengths, size, tokens))
    return [sorted(chain.from_iterable(batches[number::processes])) for number in range(processes)]


def _dealt_prompts(rows: Dataset, processes: int, sampled: set[int]) -> Dealt:
    """Longest first; those that get sampled answers before the others, so that they too are dealt evenly."""
    lengths = list_lengths(rows, "prompt_ids").tolist()
    order = sorted(range(len(lengths)), key=lambda row: (row not in sampled, -lengths[row]))
    return [sorted(order[number::processes]) for number in range(processes)]


def _lengths(rows: Dataset | None) -> list[int]:
    found: list[int] = list_lengths(rows, "prompt_ids", "completion_ids").tolist() if rows else []
    return found


def gathered(parts: Sequence[Outcome], shares: Sequence[Share]) -> Outcome:
    """What the processes made of their shares, as if one had made all of it."""
    asked = [share.production for share in shares if share.production]
    made = [part.production for part in parts if part.production]
    return Outcome(
        base=_found([part.base for part in parts], shares),
        tuned=_found([part.tuned for part in parts], shares),
        production=_made(made, asked) if asked else None,
    )


def _found(parts: Sequence[Found], shares: Sequence[Share]) -> Found:
    again = [part.again for part in parts if part.again]
    sets = range(len(shares[0].sets))
    return Found(
        validation=_whole((part.validation for part in parts), (share.validation for share in shares)),
        made=[_made([part.made[place] for part in parts], [share.sets[place] for share in shares]) for place in sets],
        reference=_whole((part.reference for part in parts), (share.reference for share in shares)),
        tasks=_whole((part.tasks for part in parts), (share.tasks for share in shares)),
        again=_made(again, [share.again for share in shares if share.again]) if again else None,
    )


def _made(parts: Sequence[Made], rows: Sequence[Rows]) -> Made:
    return Made(
        losses=_whole((part.losses for part in parts), (one.measured for one in rows)),
        answers=_whole((part.answers for part in parts), (one.answered for one in rows)),
        sampled=_whole((part.sampled for part in parts), (one.sampled for one in rows)),
    )


def _whole(parts: Iterable[Sequence[Result]], places: Iterable[Sequence[int]]) -> list[Result]:
    """The results of all, each of which belongs to the row at its place, in the order of the rows."""
    results = zip(parts, places, strict=True)
    found = {row: result for part, own in results for row, result in zip(own, part, strict=True)}
    return [found[row] for row in sorted(found)]
