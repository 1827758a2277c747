"""Base and tuned on the same prompts, in one process: first without, then with the adapter."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.errors import DataError
from steps.evaluate.execute import PASSES, RUNS, Execution, execute, limits_here
from steps.evaluate.generate import Answer, generate_answers
from steps.evaluate.grade import GRADES, grade
from steps.evaluate.inference import Side
from steps.evaluate.losses import RowLoss, completion_losses
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.report import EvaluationReport, Figure, Sample, Verdicts
from steps.evaluate.statistics import compare_losses, compare_shares
from steps.quantize.device import describe_device
from steps.quantize.load import load_quantized
from steps.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def evaluate_adapter(
    test: Dataset,
    model_folder: Path,
    adapter_folder: Path,
    tokenizer_folder: Path,
    evaluation: EvaluationParameters,
) -> EvaluationReport:
    """Compare the 4-bit base model with and without the adapter.

    Args:
        test: rows that were not trained on, columns of ``steps.format.tokenize.EXAMPLE_FEATURES``.
        model_folder: the 4-bit model.
        adapter_folder: the adapter, PEFT layout.
        tokenizer_folder: the tokenizer.
        evaluation: how much is measured.

    Raises:
        DataError: there is no test row.
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
    measured = test.select(range(min(evaluation.max_loss_rows, len(test))))
    asked = test.select(range(min(evaluation.max_prompts, len(test))))
    losses: list[list[RowLoss]] = []
    answers: list[list[Answer]] = []

    def ask(model: "PreTrainedModel | PeftModel", side: Side) -> None:
        size = evaluation.batch_size
        losses.append(completion_losses(model, measured, size, side))
        answers.append(generate_answers(model, tokenizer, asked, evaluation.max_new_tokens, size, side))

    base = load_quantized(model_folder, device)
    ask(base, "base")  # before the adapter is there: switched off, it would leave the biases that it trained
    ask(PeftModel.from_pretrained(base, str(adapter_folder)), "tuned")
    base_grades, tuned_grades = ([grade(answer) for answer in side] for side in answers)
    execution = execute(asked, [[answer.text for answer in side] for side in answers], limits) if limits else None
    shares = _shares(base_grades, tuned_grades, execution, evaluation.confidence)
    return EvaluationReport(
        figures=[*compare_losses(losses[0], losses[1], evaluation.confidence), *shares],
        samples=_samples(asked, answers, base_grades, tuned_grades, execution),
        verdicts=_verdicts(asked, execution),
        loss_rows=len(measured),
        loss_tokens=sum(row.tokens for row in losses[0]),
        answers=len(asked),
        confidence=evaluation.confidence,
        max_new_tokens=evaluation.max_new_tokens,
        device=device.reason,
        seconds=time.monotonic() - start,
    )


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
    asked: Dataset,
    answers: list[list[Answer]],
    base: list[dict[str, bool]],
    tuned: list[dict[str, bool]],
    execution: Execution | None,
) -> list[Sample]:
    verdicts = execution.sides if execution else [[None] * len(asked)] * 2
    return [
        Sample(
            row_id=row["row_id"],
            instruction=row["instruction"],
            reference=row["completion"],
            base_answer=answers[0][index].text,
            tuned_answer=answers[1][index].text,
            base_grades=base[index],
            tuned_grades=tuned[index],
            base_verdict=verdicts[0][index],
            tuned_verdict=verdicts[1][index],
        )
        for index, row in enumerate(asked)
    ]
