"""Base and tuned on the same prompts, in one process: first without, then with the adapter."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.errors import DataError
from steps.evaluate.ask import Made, Questions, ask, ask_again, other_batch_size
from steps.evaluate.compare import Asked, compared
from steps.evaluate.execute import limits_here, references_of
from steps.evaluate.inference import Side
from steps.evaluate.kept import AnswerFile, KeptAnswers
from steps.evaluate.losses import RowLoss, completion_losses
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.report import EvaluationReport, NoiseFloor, ValidationLosses
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sets import read_set
from steps.evaluate.statistics import compare_losses
from steps.quantize.device import describe_device
from steps.quantize.load import load_quantized
from steps.resolve.locks import DataLock, LockedSource
from steps.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def evaluate_adapter(
    test: Dataset,
    model_folder: Path,
    adapter_folder: Path,
    tokenizer_folder: Path,
    evaluation: EvaluationParameters,
    kept: KeptAnswers | None = None,
    sets: DataLock | None = None,
    validation: Dataset | None = None,
) -> EvaluationReport:
    """Compare the 4-bit base model with and without the adapter.

    Args:
        test: rows that were not trained on, columns of ``steps.format.tokenize.EXAMPLE_FEATURES``.
        model_folder: the 4-bit model.
        adapter_folder: the adapter, PEFT layout.
        tokenizer_folder: the tokenizer.
        evaluation: how much is measured.
        kept: where answers are written as they come, and found again; by default nowhere.
        sets: the files of ``evaluation.sets``, in their order.
        validation: rows that training chose its checkpoint by, for their losses; by default none.

    Raises:
        DataError: there is no test row, or a set cannot be read.
        DeviceError: generated code cannot be isolated here.
    """
    from peft import PeftModel

    if not len(test):
        raise DataError(
            "the test split has no row that fits parameters.prompt.max_length; "
            "raise parameters.splits.test or parameters.prompt.max_length"
        )
    start = time.monotonic()
    limits = limits_here(evaluation.sandbox)
    device = describe_device()
    tokenizer = load_tokenizer(tokenizer_folder)
    questions = _questions(test, evaluation, sets.sources if sets else [], tokenizer, limits)
    held_out = _first(evaluation.max_loss_rows, validation) if validation else None
    made: list[list[Made]] = []
    validated: list[list[RowLoss]] = []

    def on_all(model: "PreTrainedModel | PeftModel", side: Side) -> None:
        if held_out:
            validated.append(completion_losses(model, held_out, evaluation.batch_size, side))
        with AnswerFile(getattr(kept, side)) if kept else nullcontext() as file:
            made.append(ask(model, side, questions, tokenizer, evaluation, file))

    base = load_quantized(model_folder, device)
    on_all(base, "base")  # before the adapter is there: switched off, it would leave the biases that it trained
    again = ask_again(base, questions[0], tokenizer, evaluation) if evaluation.noise_rows else None
    on_all(PeftModel.from_pretrained(base, str(adapter_folder)), "tuned")
    own, *others = (
        compared(Asked(one, (first, second), again if one is questions[0] else None), evaluation, limits)
        for one, first, second in zip(questions, *made, strict=True)
    )
    return EvaluationReport(
        figures=own.figures,
        samples=own.samples,
        verdicts=own.verdicts,
        loss_rows=len(questions[0].measured),
        loss_tokens=own.loss_tokens,
        answers=len(questions[0].answered),
        confidence=evaluation.confidence,
        max_new_tokens=evaluation.max_new_tokens,
        device=device.reason,
        seconds=time.monotonic() - start,
        sets=tuple(others),
        distributions=own.distributions,
        validation=_validation(validated, evaluation.confidence) if validated else None,
        noise=_covered(again, evaluation) if again else None,
        sampling=evaluation.sampling,
    )


def _first(count: int, rows: Dataset) -> Dataset:
    return rows.select(range(min(count, len(rows))))


def _questions(
    test: Dataset,
    evaluation: EvaluationParameters,
    locks: Sequence[LockedSource],
    tokenizer: "PreTrainedTokenizerBase",
    limits: Limits | None,
) -> list[Questions]:
    """Those of the test rows, then those of each set."""
    rows = [("test", _first(evaluation.max_loss_rows, test), _first(evaluation.max_prompts, test))]
    for one, lock in zip(evaluation.sets, locks, strict=True):
        problems = read_set(one, lock, tokenizer)
        rows.append((one.name, problems, problems))
    return [
        Questions(name, measured, answered, references_of(answered, limits) if limits else None)
        for name, measured, answered in rows
    ]


def _validation(losses: list[list[RowLoss]], confidence: float) -> ValidationLosses:
    base, tuned = losses
    tokens = sum(row.tokens for row in base)
    return ValidationLosses(figures=compare_losses(base, tuned, confidence), rows=len(base), tokens=tokens)


def _covered(again: Made, evaluation: EvaluationParameters) -> NoiseFloor:
    size = other_batch_size(evaluation.batch_size)
    return NoiseFloor(loss_rows=len(again.losses), answers=len(again.answers), batch_size=size)
