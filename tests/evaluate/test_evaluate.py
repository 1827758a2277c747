"""Losses, answers, grades and intervals."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from steps.device import describe_device
from steps.errors import DataError
from steps.evaluate.answer import Answer
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.generate import generate_answers
from steps.evaluate.grade import grade
from steps.evaluate.losses import RowLoss, completion_losses
from steps.evaluate.params import EvaluationParameters, SandboxParameters
from steps.evaluate.statistics import compare_losses, compare_shares
from steps.quantize.load import load_quantized
from steps.tokenizer import load_tokenizer
from steps.train.params import LoraParameters
from steps.train.train import train_adapter
from tests.tiny_run import TinyRun, with_biases

ANYWHERE = SandboxParameters(accept_risk=True)  # a tiny model's random tokens; test_sandbox.py tests the isolation


@pytest.fixture(scope="module")
def tuned(tiny_run: TinyRun) -> PeftModel:
    model = load_quantized(tiny_run.model, describe_device("float32"))
    return PeftModel.from_pretrained(model, str(tiny_run.adapter))


def test_loss_is_that_of_the_completion_alone(tiny_run: TinyRun, tuned: PeftModel) -> None:
    """Against the model's own loss on one unpadded row, in any batch."""
    rows = tiny_run.examples["test"]
    batched = completion_losses(tuned, rows, 5, "tuned")
    for row, loss in list(zip(rows, batched, strict=True))[:3]:
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        labels = ids.clone()
        labels[:, : len(row["prompt_ids"])] = -100
        with torch.inference_mode():
            expected = float(tuned(input_ids=ids, labels=labels).loss)
        assert loss.tokens == len(row["completion_ids"])
        assert loss.nats / loss.tokens == pytest.approx(expected, abs=1e-4)


def test_the_base_is_asked_without_what_the_adapter_trained(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The biases too, which stay in place where an adapter is switched off."""
    run = with_biases(tiny_run, tmp_path / "model")
    lora = LoraParameters(r=4, target_modules=("q_proj",), bias="all", modules_to_save=("norm",))
    (tmp_path / "adapter").mkdir()
    training = run.training.model_copy(update={"lora": lora})
    train_adapter(run.blocks, run.model, run.tokenizer, training, tmp_path / "adapter")
    base = completion_losses(load_quantized(run.model, describe_device()), run.examples["test"], 8, "base")
    asked = EvaluationParameters(max_prompts=1, max_new_tokens=1, batch_size=8, sandbox=ANYWHERE)
    report = evaluate_adapter(run.examples["test"], run.model, tmp_path / "adapter", run.tokenizer, asked)
    loss = next(figure for figure in report.figures if "loss" in figure.name)
    assert loss.base == pytest.approx(sum(row.nats for row in base) / sum(row.tokens for row in base), abs=1e-6)
    assert loss.tuned != pytest.approx(loss.base, abs=1e-3)


def test_answers_do_not_depend_on_the_batch(tiny_run: TinyRun, tuned: PeftModel) -> None:
    tokenizer, rows = load_tokenizer(tiny_run.tokenizer), tiny_run.examples["test"]
    one = generate_answers(tuned, tokenizer, rows, 12, 1, "tuned")
    many = generate_answers(tuned, tokenizer, rows, 12, 16, "tuned")
    assert one == many
    assert all(answer.tokens <= 12 for answer in one)


@pytest.mark.parametrize(
    ("text", "stopped", "expected"),
    [
        ("def f(x):\n    return x\n", True, (True, True, True)),
        ("def f(x):\n    return x\n", False, (False, True, False)),
        ("```python\nx = 1\n```", True, (True, False, False)),
        ("Sure, here is the code", True, (True, False, False)),
        ("Hello", True, (True, True, False)),
        ('"""Only a text."""', True, (True, True, False)),
        ("", True, (True, False, False)),
        ("x = (", True, (True, False, False)),
        ("# only a comment", True, (True, False, False)),
        ("x = 1  # ``` inside", True, (True, True, False)),
        ("x\0y", True, (True, False, False)),
    ],
)
def test_grades(text: str, stopped: bool, expected: tuple[bool, bool, bool]) -> None:
    grades = grade(Answer(text=text, stopped=stopped, tokens=1), "Write f.")
    assert (grades["stops"], grades["parses"], grades["only code"]) == expected


@given(st.text(), st.booleans())
def test_any_text_can_be_graded(text: str, stopped: bool) -> None:
    grades = grade(Answer(text=text, stopped=stopped, tokens=1), text)
    assert not grades["only code"] or (grades["parses"] and grades["stops"])


def test_loss_and_perplexity_weigh_tokens() -> None:
    base = [RowLoss(20.0, 10), RowLoss(90.0, 30)] * 10
    tuned = [RowLoss(10.0, 10), RowLoss(45.0, 30)] * 10
    loss, perplexity = compare_losses(base, tuned, 0.95)
    assert (loss.base, loss.tuned) == (110 / 40, 55 / 40)
    assert perplexity.base == pytest.approx(math.exp(110 / 40))
    assert loss.low < loss.difference < loss.high < 0
    assert loss.verdict == perplexity.verdict == "better"


@pytest.mark.parametrize(
    ("base", "tuned", "verdict"),
    [
        ([False] * 20, [True] * 20, "better"),
        ([True] * 20, [False] * 20, "worse"),
        ([True, False] * 10, [True, False] * 10, "undecided"),
        ([True, False] * 10, [False, True] * 10, "undecided"),
        ([False], [True], "undecided"),
    ],
)
def test_shares(base: list[bool], tuned: list[bool], verdict: str) -> None:
    figure = compare_shares("stops", base, tuned, 0.95)
    assert figure.difference == pytest.approx(sum(tuned) / len(tuned) - sum(base) / len(base))
    assert figure.verdict == verdict


def test_report_compares_both_models_on_the_same_rows(tiny_run: TinyRun) -> None:
    parameters = EvaluationParameters(max_prompts=4, max_new_tokens=8, sandbox=ANYWHERE)
    test = tiny_run.examples["test"]
    report = evaluate_adapter(test, tiny_run.model, tiny_run.adapter, tiny_run.tokenizer, parameters)
    assert [figure.name for figure in report.figures] == [
        "loss",
        "perplexity",
        "stops",
        "parses",
        "only code",
        "runs",
        "length",
        "repetition",
    ]
    assert report.figure("loss").verdict == "better"
    assert (report.loss_rows, report.answers, len(report.samples)) == (len(test), 4, 4)
    assert report.model_validate_json(report.model_dump_json()) == report
    assert "Base against tuned" in report.html()


def test_no_test_row_is_an_error(tiny_run: TinyRun) -> None:
    empty = tiny_run.examples["test"].select([])
    with pytest.raises(DataError, match=r"raise parameters\.splits\.test or parameters\.prompt\.max_length"):
        evaluate_adapter(empty, tiny_run.model, tiny_run.adapter, tiny_run.tokenizer, EvaluationParameters())
