"""The model that is in production, on the run's own test rows, against the candidate.

It is asked as it serves: its adapter on its own quantised base, with its own tokenizer and chat template.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset

from steps.device import Device
from steps.errors import DataError
from steps.evaluate.answer_file import AnswerFile
from steps.evaluate.ask import Made, Questions, ask
from steps.evaluate.compare import Asked, compared
from steps.evaluate.losses import RowLoss
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.report import Figure, ProductionReport
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sets import Problem, renderer
from steps.quantize.load import load_quantized
from steps.rows import table_of
from steps.tokenizer import load_tokenizer

Folders = tuple[Path, Path, Path]
"""Of the 4-bit model, the adapter and the tokenizer."""


@dataclass(frozen=True)
class Production:
    """The version in production; without ``folders`` its model is not asked, and ``why_not`` says why.

    ``same``: its adapter is the candidate's.
    """

    version: int
    folders: Folders | None
    why_not: str = ""
    same: bool = False


@dataclass(frozen=True)
class Candidate:
    """What the tuned model made of the test rows, and the figures of that with their noise."""

    questions: Questions
    made: Made
    figures: Sequence[Figure]


def asked_of(production: Production, questions: Questions) -> tuple[Production, Questions | None]:
    """What its model is asked, the same rows as its own chat template has them; or None, and production says why."""
    if production.folders is None:
        return production, None
    try:
        return production, _rendered(questions, production.folders[2])
    except DataError as error:
        why_not = f"its prompt template cannot render a test row: {error}"
        return replace(production, folders=None, why_not=why_not), None


def ask_production(
    questions: Questions, folders: Folders, evaluation: EvaluationParameters, device: Device, kept: Path | None
) -> Made:
    """What the model in production makes of its questions.

    Args:
        questions: as :func:`asked_of` gives them.
        folders: of the version in production.
        evaluation: how much is measured.
        device: where the model runs.
        kept: file of its answers, found again by the next candidate.
    """
    from peft import PeftModel

    model_folder, adapter_folder, tokenizer_folder = folders
    gc.collect()  # models hold themselves in circles: without it the ones before would still be in memory
    model = PeftModel.from_pretrained(load_quantized(model_folder, device), str(adapter_folder))
    with AnswerFile(kept) if kept else nullcontext() as file:
        return ask(model, "production", [questions], load_tokenizer(tokenizer_folder), evaluation, file)[0]


def against_production(
    production: Production,
    made: Made | None,
    candidate: Candidate,
    evaluation: EvaluationParameters,
    limits: Limits | None,
) -> ProductionReport:
    """The figures of production and candidate on the same rows.

    Args:
        production: what is in production.
        made: what its model made of the rows; None where it was not asked.
        candidate: the tuned model.
        evaluation: how much is measured.
        limits: of the programs; None where none run.
    """
    told = ProductionReport(version=production.version, same=production.same, why_not=production.why_not)
    if made is None:
        return told
    losses = comparable(made.losses, candidate.made.losses)
    sides = (replace(made, losses=losses), candidate.made)
    figures = compared(Asked(candidate.questions, sides), evaluation, limits).figures
    noise = {figure.name: figure.noise for figure in candidate.figures}
    return told.model_copy(
        update={"figures": [figure.model_copy(update={"noise": noise.get(figure.name)}) for figure in figures]}
    )


def comparable(losses: Sequence[RowLoss], candidates: Sequence[RowLoss]) -> list[RowLoss]:
    """The same nats, counted per token of the candidate: of another tokenizer's own tokens they would not compare."""
    return [RowLoss(one.nats, other.tokens) for one, other in zip(losses, candidates, strict=True)]


def _rendered(questions: Questions, tokenizer_folder: Path) -> Questions:
    """The same rows as production's own chat template has them."""
    render = renderer(load_tokenizer(tokenizer_folder))

    def table(rows: Dataset) -> Dataset:
        def encoded() -> Iterator[dict[str, object]]:
            for row in rows:
                problem = Problem(row["row_id"], row["instruction"], row["completion"], tests=())
                yield {**row, **render(problem)}

        return table_of(encoded(), rows.features)

    return replace(questions, measured=table(questions.measured), answered=table(questions.answered))
