"""The comparison of base, tuned and production, from rows and folders to the report."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.device import Device, describe_device
from steps.errors import DataError
from steps.evaluate.ask import Made, Questions, other_batch_size
from steps.evaluate.compare import Asked, compared
from steps.evaluate.distributed.launch import examine_by_processes
from steps.evaluate.examine import Examination, Models, Outcome, examine
from steps.evaluate.execute import limits_here, references_of
from steps.evaluate.forgetting import compare_reference, context_of, read_reference, windows_of
from steps.evaluate.kept import KeptAnswers
from steps.evaluate.losses import RowLoss
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.production import Candidate, Production, against_production, asked_of
from steps.evaluate.report import EvaluationReport, NoiseFloor, ProductionReport, SetReport, ValidationLosses
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sets import read_set
from steps.evaluate.statistics import compare_losses
from steps.evaluate.tasks import compare_task
from steps.resolve.locks import BenchmarkLock
from steps.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    processes: int = 1,
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
        processes: how many share the asking, a GPU each; what they make is what one makes.

    Raises:
        DataError: there is no test row, or a set, the reference text or a task cannot be read.
        DeviceError: generated code cannot be isolated here.
        EvaluationError: one of several processes failed or was killed.
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
    asked = _examination(test, validation, evaluation, benchmarks, tokenizer, limits, model_folder)
    if production is not None:
        production, rows = asked_of(production, asked.questions[0])
        asked = replace(asked, production=rows)
    models = Models(model_folder, adapter_folder, tokenizer_folder, production.folders if production else None)
    if processes > 1:
        found = examine_by_processes(models, asked, evaluation, kept, processes)
    else:
        found = examine(models, asked, evaluation, kept, device)
    sets = _compared(asked, found, evaluation, limits)
    measured = None
    if production is not None:
        candidate = Candidate(asked.questions[0], found.tuned.made[0], sets[0].figures)
        measured = against_production(production, found.production, candidate, evaluation, limits)
    text = benchmarks.reference_text.name if benchmarks and benchmarks.reference_text else None
    return _report(asked, found, sets, measured, text, evaluation, device, start)


def _examination(
    test: Dataset,
    validation: Dataset | None,
    evaluation: EvaluationParameters,
    benchmarks: BenchmarkLock | None,
    tokenizer: "PreTrainedTokenizerBase",
    limits: Limits | None,
    model_folder: Path,
) -> Examination:
    rows = [("test", _first(evaluation.max_loss_rows, test), _first(evaluation.max_prompts, test))]
    for one, lock in zip(evaluation.sets, benchmarks.sources if benchmarks else [], strict=True):
        problems = read_set(one, lock, tokenizer)
        rows.append((one.name, problems, problems))
    questions = [
        Questions(name, measured, answered, references_of(answered, limits) if limits else None)
        for name, measured, answered in rows
    ]
    windows = None
    if benchmarks and benchmarks.reference_text:
        text, length = read_reference(benchmarks.reference_text), context_of(model_folder)
        windows = windows_of(text, tokenizer, length, evaluation.reference_windows)
    return Examination(
        questions=questions,
        validation=_first(evaluation.max_loss_rows, validation) if validation else None,
        reference=windows,
        tasks=list(evaluation.tasks),
        again=questions[0] if evaluation.noise_rows else None,
        production=None,
    )


def _first(count: int, rows: Dataset) -> Dataset:
    return rows.select(range(min(count, len(rows))))


def _compared(
    asked: Examination, found: Outcome, evaluation: EvaluationParameters, limits: Limits | None
) -> list[SetReport]:
    """The test rows, which alone have a noise floor, then each set."""
    base, tuned = found.base, found.tuned
    return [
        compared(Asked(one, (first, second), base.again if one is asked.questions[0] else None), evaluation, limits)
        for one, first, second in zip(asked.questions, base.made, tuned.made, strict=True)
    ]


def _report(
    asked: Examination,
    found: Outcome,
    compared_sets: Sequence[SetReport],
    production: ProductionReport | None,
    text: str | None,
    evaluation: EvaluationParameters,
    device: Device,
    start: float,
) -> EvaluationReport:
    own, *sets = compared_sets
    base, tuned, confidence = found.base, found.tuned, evaluation.confidence
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
        forgetting=compare_reference(text, confidence, base.reference, tuned.reference) if text else None,
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
