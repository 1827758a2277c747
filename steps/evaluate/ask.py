"""One model on every set: losses, greedy answers, sampled answers; and the base model a second time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.evaluate.answer import Answer
from steps.evaluate.answer_file import AnswerFile
from steps.evaluate.execute import tested_rows
from steps.evaluate.generate import generate_answers
from steps.evaluate.inference import Side
from steps.evaluate.losses import BATCH_TOKENS, RowLoss, completion_losses
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.sampling import Draw
from steps.evaluate.sandbox.verdict import Verdict

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Questions:
    """What both models are asked of one set.

    ``references`` are the verdicts of the answered rows' own solutions, None where no generated code runs.
    """

    name: str
    measured: Dataset  # rows whose loss is measured
    answered: Dataset
    references: list[Verdict | None] | None

    @property
    def tested(self) -> list[int]:
        """The answered rows whose tests count."""
        return tested_rows(self.references or [])


@dataclass(frozen=True)
class Made:
    """What one model made of one set; ``sampled`` has the sampled answers to each prompt whose tests count."""

    losses: list[RowLoss]
    answers: list[Answer]
    sampled: list[list[Answer]]


def ask(
    model: "PreTrainedModel | PeftModel",
    side: Side,
    questions: Sequence[Questions],
    tokenizer: "PreTrainedTokenizerBase",
    evaluation: EvaluationParameters,
    kept: AnswerFile | None,
) -> list[Made]:
    """What the model makes of each set: the losses of all, then the answers to all, then the sampled ones."""
    size, limit, sampling = evaluation.batch_size, evaluation.max_new_tokens, evaluation.sampling
    losses = [completion_losses(model, one.measured, size, side) for one in questions]
    answers = [generate_answers(model, tokenizer, one.answered, limit, size, side, kept) for one in questions]
    sampled: list[list[list[Answer]]] = [[] for _ in questions]
    if sampling is not None:
        draws = [Draw(sampling.temperature, sampling.top_p, number) for number in range(sampling.answers)]
        for place, one in enumerate(questions):
            tested = one.answered.select(one.tested)
            found = generate_answers(model, tokenizer, tested, limit, size, side, kept, draws) if tested else []
            sampled[place] = [found[start : start + len(draws)] for start in range(0, len(found), len(draws))]
    return [Made(*parts) for parts in zip(losses, answers, sampled, strict=True)]


def ask_again(
    model: "PreTrainedModel | PeftModel",
    one: Questions,
    tokenizer: "PreTrainedTokenizerBase",
    evaluation: EvaluationParameters,
) -> Made:
    """The first rows once more, in the opposite order and in other batches; results are in the rows' order.

    Nothing is taken from the disk: what differs from the first time is the noise of the figures.
    """
    measured, answered = (
        rows.select(range(min(evaluation.noise_rows, len(rows)))[::-1]) for rows in (one.measured, one.answered)
    )
    size = other_batch_size(evaluation.batch_size)
    losses = completion_losses(model, measured, size, "base again", BATCH_TOKENS // 2)
    answers = generate_answers(model, tokenizer, answered, evaluation.max_new_tokens, size, "base again")
    return Made(losses[::-1], answers[::-1], [])


def other_batch_size(batch_size: int) -> int:
    """Half of it, rows; where it is 1, two."""
    return batch_size // 2 or 2
