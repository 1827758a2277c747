"""Base and tuned on the same prompts, in one process: first without, then with the adapter; then production."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.device import Device
from steps.evaluate.answer_file import AnswerFile
from steps.evaluate.ask import Made, Questions, ask, ask_again
from steps.evaluate.inference import Side
from steps.evaluate.kept import KeptAnswers
from steps.evaluate.losses import RowLoss, completion_losses
from steps.evaluate.params import EvaluationParameters, EvaluationTask
from steps.evaluate.production import Folders, ask_production
from steps.evaluate.tasks import LoadedTask, Scores, do_task, load_task
from steps.quantize.load import load_quantized
from steps.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Models:
    """The folders of what is asked."""

    base: Path  # 4-bit model
    adapter: Path
    tokenizer: Path
    production: Folders | None  # where its model is asked


@dataclass(frozen=True)
class Examination:
    """All that the models are asked, or one process's share of it."""

    questions: list[Questions]  # of the test rows, then of each set
    validation: Dataset | None  # rows whose losses are measured
    reference: Dataset | None  # windows of the reference text
    tasks: list[EvaluationTask]
    again: Questions | None  # test rows, the first of which the base is asked once more
    production: Questions | None  # the test rows as production's own chat template has them


@dataclass(frozen=True)
class Found:
    """What one model made of it."""

    validation: list[RowLoss]
    made: list[Made]
    reference: list[RowLoss]
    tasks: list[dict[str, Scores]]
    again: Made | None = None  # the base alone


@dataclass(frozen=True)
class Outcome:
    """What all of them made of it."""

    base: Found
    tuned: Found
    production: Made | None


@dataclass(frozen=True)
class _Loaded:
    """What both sides of the candidate need."""

    asked: Examination
    tasks: list[LoadedTask]
    tokenizer: "PreTrainedTokenizerBase"
    evaluation: EvaluationParameters
    kept: KeptAnswers | None


def examine(
    models: Models, asked: Examination, evaluation: EvaluationParameters, kept: KeptAnswers | None, device: Device
) -> Outcome:
    """Ask one model after the other.

    Args:
        models: where they lie.
        asked: what each is asked.
        evaluation: how much is measured.
        kept: where answers are written as they come, and found again; with none, nowhere.
        device: where the models run.

    Raises:
        DataError: a task cannot be loaded.
    """
    tasks = [load_task(one) for one in asked.tasks]
    loaded = _Loaded(asked, tasks, load_tokenizer(models.tokenizer), evaluation, kept)
    base, tuned = _base_and_tuned(models, loaded, device)  # no model is left: production's has their place
    made = None
    if models.production and asked.production:
        made = ask_production(
            asked.production, models.production, evaluation, device, kept.production if kept else None
        )
    return Outcome(base, tuned, made)


def _base_and_tuned(models: Models, loaded: _Loaded, device: Device) -> tuple[Found, Found]:
    from peft import PeftModel

    base = load_quantized(models.base, device)
    # The base comes before the adapter is there: switched off, it would leave the biases that it trained.
    before = _examined(base, "base", loaded)
    tuned = PeftModel.from_pretrained(base, str(models.adapter))
    return before, _examined(tuned, "tuned", loaded)


def _examined(model: "PreTrainedModel | PeftModel", side: Side, loaded: _Loaded) -> Found:
    asked, evaluation, kept = loaded.asked, loaded.evaluation, loaded.kept
    size, tokenizer = evaluation.batch_size, loaded.tokenizer
    validation = completion_losses(model, asked.validation, size, side) if asked.validation else []
    with AnswerFile(getattr(kept, side)) if kept else nullcontext() as file:
        made = ask(model, side, asked.questions, tokenizer, evaluation, file)
    reference = completion_losses(model, asked.reference, size, side) if asked.reference else []
    tasks = [do_task(model, tokenizer, one, size) for one in loaded.tasks]
    again = ask_again(model, asked.again, tokenizer, evaluation) if side == "base" and asked.again else None
    return Found(validation, made, reference, tasks, again)
