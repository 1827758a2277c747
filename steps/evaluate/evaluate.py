"""Base and tuned on the same prompts, in one process: first without, then with the adapter."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.errors import DataError
from steps.evaluate.compare import Asked, compared
from steps.evaluate.execute import limits_here
from steps.evaluate.forgetting import compare_reference, read_reference, reference_losses
from steps.evaluate.generate import Answer, generate_answers
from steps.evaluate.inference import Side
from steps.evaluate.kept import AnswerFile, KeptAnswers
from steps.evaluate.losses import RowLoss, completion_losses
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.report import EvaluationReport
from steps.evaluate.sets import read_set
from steps.evaluate.tasks import Scores, compare_task, do_task, load_task
from steps.quantize.device import describe_device
from steps.quantize.load import load_quantized
from steps.resolve.locks import BenchmarkLock
from steps.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Made:
    """What one model made of each set."""

    losses: list[list[RowLoss]]
    answers: list[list[Answer]]


def evaluate_adapter(
    test: Dataset,
    model_folder: Path,
    adapter_folder: Path,
    tokenizer_folder: Path,
    evaluation: EvaluationParameters,
    kept: KeptAnswers | None = None,
    sets: BenchmarkLock | None = None,
) -> EvaluationReport:
    """Compare the 4-bit base model with and without the adapter.

    Args:
        test: rows that were not trained on, columns of ``steps.format.tokenize.EXAMPLE_FEATURES``.
        model_folder: the 4-bit model.
        adapter_folder: the adapter, PEFT layout.
        tokenizer_folder: the tokenizer.
        evaluation: how much is measured.
        kept: where answers are written as they come, and found again; by default nowhere.
        sets: the files of ``evaluation.sets``, in their order, and of the reference text, which is measured if it
            is there.

    Raises:
        DataError: there is no test row, or a set, the reference text or a task cannot be read.
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
    locks = sets.sources if sets else []
    benchmarks = [read_set(one, lock, tokenizer) for one, lock in zip(evaluation.sets, locks, strict=True)]
    measured = [test.select(range(min(evaluation.max_loss_rows, len(test)))), *benchmarks]
    asked = [test.select(range(min(evaluation.max_prompts, len(test)))), *benchmarks]
    text = read_reference(sets.reference_text) if sets and sets.reference_text else ""
    tasks = [load_task(one) for one in evaluation.tasks]
    made: list[Made] = []
    references: list[list[RowLoss]] = []
    done: list[list[dict[str, Scores]]] = []

    def ask(model: "PreTrainedModel | PeftModel", side: Side) -> None:
        made.append(_ask(model, side, measured, asked, tokenizer, evaluation, kept))
        references.append(reference_losses(model, text, tokenizer, evaluation, side) if text else [])
        done.append([do_task(model, tokenizer, one, evaluation.batch_size) for one in tasks])

    base = load_quantized(model_folder, device)
    ask(base, "base")  # before the adapter is there: switched off, it would leave the biases that it trained
    ask(PeftModel.from_pretrained(base, str(adapter_folder)), "tuned")
    own, *others = (
        compared(
            Asked(name, asked[at], [side.losses[at] for side in made], [side.answers[at] for side in made]),
            evaluation.confidence,
            limits,
        )
        for at, name in enumerate(["test", *(one.name for one in evaluation.sets)])
    )
    return EvaluationReport(
        figures=own.figures,
        samples=own.samples,
        verdicts=own.verdicts,
        loss_rows=len(measured[0]),
        loss_tokens=own.loss_tokens,
        answers=len(asked[0]),
        confidence=evaluation.confidence,
        max_new_tokens=evaluation.max_new_tokens,
        device=device.reason,
        seconds=time.monotonic() - start,
        sets=tuple(others),
        distributions=own.distributions,
        forgetting=compare_reference(sets.reference_text.name, evaluation.confidence, *references)
        if sets and sets.reference_text
        else None,
        tasks=tuple(
            compare_task(one.name, base_scores, tuned_scores, evaluation.confidence)
            for one, base_scores, tuned_scores in zip(evaluation.tasks, *done, strict=True)
        ),
    )


def _ask(
    model: "PreTrainedModel | PeftModel",
    side: Side,
    measured: list[Dataset],
    asked: list[Dataset],
    tokenizer: "PreTrainedTokenizerBase",
    evaluation: EvaluationParameters,
    kept: KeptAnswers | None,
) -> Made:
    """Losses of each measured set, then answers to each asked one."""
    size = evaluation.batch_size
    losses = [completion_losses(model, rows, size, side) for rows in measured]
    with AnswerFile(getattr(kept, side)) if kept else nullcontext() as file:
        answers = [
            generate_answers(model, tokenizer, rows, evaluation.max_new_tokens, size, side, file) for rows in asked
        ]
    return Made(losses, answers)
