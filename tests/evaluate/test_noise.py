"""The noise floor: what the base's figures change when it is asked again."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steps.device import describe_device
from steps.evaluate.answer_file import AnswerFile
from steps.evaluate.ask import Made, Questions, ask, ask_again, other_batch_size
from steps.evaluate.compare import noise_floor
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.grade import grade
from steps.evaluate.kept import KeptAnswers
from steps.evaluate.params import EvaluationParameters, SandboxParameters
from steps.quantize.load import load_quantized
from steps.tokenizer import load_tokenizer
from tests.tiny_run import TinyRun

ASKED = EvaluationParameters(max_new_tokens=8, batch_size=5, noise_rows=4, sandbox=SandboxParameters(execute="never"))
FIGURES = ["loss", "perplexity", "stops", "parses", "only code", "length", "repetition"]


def floor_of(run: TinyRun, between: Callable[[PreTrainedModel], None]) -> tuple[dict[str, float], Made, Made]:
    """The noise of a model to which something happens between the two times, and what it made."""
    model = load_quantized(run.model, describe_device("float32"))
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(run.tokenizer)
    rows: Dataset = run.examples["test"]
    questions = Questions("test", rows, rows.select(range(6)), None)
    (first,) = ask(model, "base", [questions], tokenizer, ASKED, None)
    between(model)
    again = ask_again(model, questions, tokenizer, ASKED)
    grades = [grade(answer, row["instruction"]) for answer, row in zip(first.answers, rows, strict=False)]
    return noise_floor(questions, first, grades, again, None), first, again


def test_the_noise_of_the_same_model_is_rounding(tiny_run: TinyRun) -> None:
    noise, first, again = floor_of(tiny_run, lambda _: None)
    assert list(noise) == FIGURES
    assert max(noise.values()) < 1e-3
    assert len(again.losses) == len(again.answers) == 4
    assert [loss.tokens for loss in again.losses] == [loss.tokens for loss in first.losses[:4]], "in the rows' order"
    assert again.answers == first.answers[:4]


def test_a_second_time_that_differs_shows_up(tiny_run: TinyRun) -> None:
    """Weights that change in between, as a kernel that is not deterministic would have it."""

    def shaken(model: Any) -> None:
        torch.manual_seed(0)
        with torch.no_grad():
            weight = model.get_output_embeddings().weight
            weight += 0.2 * weight.std() * torch.randn_like(weight)

    quiet, first, _ = floor_of(tiny_run, lambda _: None)
    noise, _, again = floor_of(tiny_run, shaken)
    assert noise["loss"] > max(100 * quiet["loss"], 1e-3)

    def loss_of(made: Made) -> float:
        return sum(row.nats for row in made.losses[:4]) / sum(row.tokens for row in made.losses[:4])

    assert noise["loss"] == pytest.approx(abs(loss_of(again) - loss_of(first)))


def test_the_report_has_the_noise_of_the_test_rows(tiny_run: TinyRun, tmp_path: Any) -> None:
    """Computed anew although every answer lies on the disk, and nothing where it is switched off."""
    kept = KeptAnswers(tmp_path / "base.jsonl", tmp_path / "tuned.jsonl")
    folders = (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer)
    rows, few = tiny_run.examples["test"], ASKED.model_copy(update={"max_prompts": 3})
    report = evaluate_adapter(rows, *folders, few, kept)
    assert report.noise is not None
    assert (report.noise.loss_rows, report.noise.answers, report.noise.batch_size) == (4, 3, 2)
    assert all(figure.noise is not None and figure.noise < 1e-3 for figure in report.figures)
    assert "4 losses and 3 answers" in report.html()
    forged = [line.replace(b'"stopped": false', b'"stopped": true') for line in kept.base.read_bytes().splitlines()]
    kept.base.write_bytes(b"\n".join(forged) + b"\n")
    with AnswerFile(kept.base) as file:
        expected = sum(answer.stopped for answer in file.answers.values()) / 3
    again = evaluate_adapter(rows, *folders, few, kept).figure("stops")
    assert again.base == expected
    assert again.noise == pytest.approx(again.base - report.figure("stops").base) != 0
    off = evaluate_adapter(rows, *folders, few.model_copy(update={"noise_rows": 0}), kept)
    assert off.noise is None
    assert all(figure.noise is None for figure in off.figures)


@pytest.mark.parametrize(("size", "other"), [(1, 2), (2, 1), (3, 1), (16, 8)])
def test_batches_are_others(size: int, other: int) -> None:
    assert other_batch_size(size) == other
