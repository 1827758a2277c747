"""Base and tuned on the same prompts, in one process: first without, then with the adapter; then production."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.errors import DataError
from steps.evaluate.answer_file import AnswerFile
from steps.evaluate.ask import Made, Questions, ask, ask_again, other_batch_size
from steps.evaluate.compare import Asked, compared
from steps.evaluate.execute import limits_here, references_of
from steps.evaluate.forgetting import compare_reference, read_reference, reference_losses
from steps.evaluate.inference import Side
from steps.evaluate.kept import KeptAnswers
from steps.evaluate.losses import RowLoss, completion_losses
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.production import Candidate, Production, against_production
from steps.evaluate.report import EvaluationReport, NoiseFloor, ProductionReport, SetReport, ValidationLosses
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sets import read_set
from steps.evaluate.statistics import compare_losses
from steps.evaluate.tasks import LoadedTask, Scores, compare_task, do_task, load_task
from steps.quantize.device import Device, describe_device
from steps.quantize.load import load_quantized
from steps.resolve.locks import BenchmarkLock
from steps.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Examination:
    """All that a model is asked."""

    questions: list[Questions]  # of the test rows, then of each set
    validation: Dataset | None  # rows whose losses are measured
    reference: tuple[str, str] | None  # name and text
    tasks: list[LoadedTask]


@dataclass(frozen=True)
class Found:
    """What one model made of it."""

    validation: list[RowLoss]
    made: list[Made]
    reference: list[RowLoss]
    tasks: list[dict[str, Scores]]
    again: Made | None = None  # of the first test rows, asked once more: the base alone


def evaluate_adapter(
    test: Dataset,
    model_folder: Path,
    adapter_folder: Path,
    tokenizer_folder: Path,
    evaluation: EvaluationParameters,
    kept: KeptAnswers | None = None,
    benchmarks: BenchmarkLock | None = None,
    validation: Dataset | None = None,
    production: Production | None = None,
) -> EvaluationReport:
    """Compare the 4-bit base model with and without the adapter, and the latter with what is in production.

    Args:
        test: rows that were not trained on, columns of ``steps.rows.EXAMPLE_FEATURES``.
        model_folder: the 4-bit model.
        adapter_folder: the adapter, PEFT layout.
        tokenizer_folder: the tokenizer.
        evaluation: how much is measured.
        kept: where answers are written as they come, and found again; by default nowhere.
        benchmarks: the files of ``evaluation.sets``, in their order, and of the reference text, which is measured
            if it is there.
        validation: rows that training chose its checkpoint by, for their losses; by default none.
        production: the version that is in production, asked about the test rows alone; by default none is.

    Raises:
        DataError: there is no test row, or a set, the reference text or a task cannot be read.
        DeviceError: generated code cannot be isolated here.
    """
    if not len(test):
        raise DataError(
            "the test split has no row that fits parameters.prompt.max_length; "
            "raise parameters.splits.test or parameters.prompt.max_length"
        )
    start = time.monotonic()
    limits = limits_here(evaluation.sandbox)
    device = describe_device()
    tokenizer = load_tokenizer(tokenizer_folder)
    examination = _examination(test, validation, evaluation, benchmarks, tokenizer, limits)
    base = load_quantized(model_folder, device)
    before, after = _base_and_tuned(base, adapter_folder, examination, tokenizer, evaluation, kept)
    del base  # production's has its place
    sets = _compared(examination, before, after, evaluation, limits)
    measured = None
    if production is not None:
        candidate = Candidate(examination.questions[0], after.made[0], sets[0].figures)
        file = kept.production if kept else None
        measured = against_production(production, candidate, evaluation, limits, device, file)
    return _report(examination, before, after, sets, measured, evaluation, device, start)


def _base_and_tuned(
    base: "PreTrainedModel",
    adapter_folder: Path,
    asked: Examination,
    tokenizer: "PreTrainedTokenizerBase",
    evaluation: EvaluationParameters,
    kept: KeptAnswers | None,
) -> tuple[Found, Found]:
    from peft import PeftModel

    # The base comes before the adapter is there: switched off, it would leave the biases that it trained.
    before = _examined(base, "base", asked, tokenizer, evaluation, kept)
    tuned = PeftModel.from_pretrained(base, str(adapter_folder))
    return before, _examined(tuned, "tuned", asked, tokenizer, evaluation, kept)


def _examination(
    test: Dataset,
    validation: Dataset | None,
    evaluation: EvaluationParameters,
    benchmarks: BenchmarkLock | None,
    tokenizer: "PreTrainedTokenizerBase",
    limits: Limits | None,
) -> Examination:
    rows = [("test", _first(evaluation.max_loss_rows, test), _first(evaluation.max_prompts, test))]
    for one, lock in zip(evaluation.sets, benchmarks.sources if benchmarks else [], strict=True):
        problems = read_set(one, lock, tokenizer)
        rows.append((one.name, problems, problems))
    text = benchmarks.reference_text if benchmarks else None
    return Examination(
        questions=[
            Questions(name, measured, answered, references_of(answered, limits) if limits else None)
            for name, measured, answered in rows
        ],
        validation=_first(evaluation.max_loss_rows, validation) if validation else None,
        reference=(text.name, read_reference(text)) if text else None,
        tasks=[load_task(one) for one in evaluation.tasks],
    )


def _first(count: int, rows: Dataset) -> Dataset:
    return rows.select(range(min(count, len(rows))))


def _examined(
    model: "PreTrainedModel | PeftModel",
    side: Side,
    asked: Examination,
    tokenizer: "PreTrainedTokenizerBase",
    evaluation: EvaluationParameters,
    kept: KeptAnswers | None,
) -> Found:
    size = evaluation.batch_size
    validation = completion_losses(model, asked.validation, size, side) if asked.validation else []
    with AnswerFile(getattr(kept, side)) if kept else nullcontext() as file:
        made = ask(model, side, asked.questions, tokenizer, evaluation, file)
    reference = reference_losses(model, asked.reference[1], tokenizer, evaluation, side) if asked.reference else []
    tasks = [do_task(model, tokenizer, one, size) for one in asked.tasks]
    twice = side == "base" and evaluation.noise_rows
    again = ask_again(model, asked.questions[0], tokenizer, evaluation) if twice else None
    return Found(validation, made, reference, tasks, again)


def _compared(
    asked: Examination, base: Found, tuned: Found, evaluation: EvaluationParameters, limits: Limits | None
) -> list[SetReport]:
    """The test rows, which alone have a noise floor, then each set."""
    return [
        compared(Asked(one, (first, second), base.again if one is asked.questions[0] else None), evaluation, limits)
        for one, first, second in zip(asked.questions, base.made, tuned.made, strict=True)
    ]


def _report(
    asked: Examination,
    base: Found,
    tuned: Found,
    compared_sets: Sequence[SetReport],
    production: ProductionReport | None,
    evaluation: EvaluationParameters,
    device: Device,
    start: float,
) -> EvaluationReport:
    own, *sets = compared_sets
    text, confidence = asked.reference, evaluation.confidence
    return EvaluationReport(
        figures=own.figures,
        samples=own.samples,
        verdicts=own.verdicts,
        loss_rows=len(asked.questions[0].measured),
        loss_tokens=own.loss_tokens,
        answers=len(asked.questions[0].answered),
        confidence=confidence,
        max_new_tokens=evaluation.max_new_tokens,
        device=device.reason,
        sets=tuple(sets),
        distributions=own.distributions,
        validation=_validation(base.validation, tuned.validation, confidence) if asked.validation else None,
        noise=_covered(base.again, evaluation) if base.again else None,
        sampling=evaluation.sampling,
        forgetting=compare_reference(text[0], confidence, base.reference, tuned.reference) if text else None,
        tasks=tuple(
            compare_task(one.name, first, second, confidence)
            for one, first, second in zip(evaluation.tasks, base.tasks, tuned.tasks, strict=True)
        ),
        production=production,
        seconds=time.monotonic() - start,
    )


def _validation(base: Sequence[RowLoss], tuned: Sequence[RowLoss], confidence: float) -> ValidationLosses:
    tokens = sum(row.tokens for row in base)
    return ValidationLosses(figures=compare_losses(base, tuned, confidence), rows=len(base), tokens=tokens)


def _covered(again: Made, evaluation: EvaluationParameters) -> NoiseFloor:
    size = other_batch_size(evaluation.batch_size)
    return NoiseFloor(loss_rows=len(again.losses), answers=len(again.answers), batch_size=size)
