"""Length, repetition, repeated prompts and sampled answers: from an answer to its figures."""

from pathlib import Path

import pytest
from datasets import Dataset
from pydantic import ValidationError

from pipelines.compare import Evaluated, compared, draw
from steps.evaluate.answer import Answer, answer_of, repetition
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.execute import limits_here, passed_samples
from steps.evaluate.grade import grade
from steps.evaluate.kept import KeptAnswers
from steps.evaluate.params import EvaluationParameters, SamplingParameters, SandboxParameters
from steps.evaluate.report import Figure
from steps.evaluate.statistics import compare_means, compare_passes
from steps.page import render
from steps.tokenizer import load_tokenizer
from tests.tiny_run import TinyRun


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], 0.0),
        ([1, 2, 3], 0.0),
        ([1, 2, 3, 4, 5, 6, 7], 0.0),
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),  # 1234 2341 3412 4123 1234
        ([1] * 8, 4 / 5),
    ],
)
def test_repetition_counts_sequences_that_were_there_before(tokens: list[int], expected: float) -> None:
    assert repetition(tokens) == pytest.approx(expected)


def test_the_end_token_is_no_part_of_an_answer(tiny_run: TinyRun) -> None:
    tokenizer = load_tokenizer(tiny_run.tokenizer)
    ids = tokenizer.encode("x = 1", add_special_tokens=False)
    stopped = answer_of([*ids, tokenizer.eos_token_id], tokenizer)
    assert (stopped.text, stopped.tokens) == ("x = 1", len(ids))
    assert answer_of([*ids * 3, tokenizer.eos_token_id], tokenizer).repetition == repetition(ids * 3) > 0


@pytest.mark.parametrize(
    ("text", "only_code"),
    [
        ("# Add two numbers.\ndef add(a, b):\n    return a + b", False),
        ("#  Add two numbers.  \nx = 1", False),
        ('"""\nAdd two numbers.\nBoth are whole.\n"""\nx = 1', False),
        ('def add(a, b):\n    """Add two numbers."""\n    return a + b', True),
        ("def add(a, b):\n    # Add two numbers.\n    return a + b", True),
        ("# Sum\nx = 1", True),
    ],
)
def test_an_answer_that_repeats_the_prompt_is_not_only_code(text: str, only_code: bool) -> None:
    """A documented function is; the model was asked for one."""
    grades = grade(Answer(text, True, 1), "Add two numbers.\n\nBoth are whole.")
    assert grades["parses"]
    assert grades["only code"] == only_code


@pytest.mark.parametrize(
    ("change", "verdict"), [(5.0, "higher"), (-5.0, "lower"), (0.0, "undecided")], ids=["longer", "shorter", "equal"]
)
def test_a_longer_answer_is_neither_better_nor_worse(change: float, verdict: str) -> None:
    base = [10.0, 20.0, 30.0, 60.0]
    figure = compare_means("length", base, [value + change for value in base], 0.95, "tokens", "neither")
    assert (figure.base, figure.tuned, figure.verdict) == (30.0, 30.0 + change, verdict)
    assert figure.show(figure.tuned) == f"{30 + change:.1f}"


def test_pass_at_k_of_known_passes() -> None:
    """Of four answers to each of two prompts: all pass and none; then two of each."""
    one, two = compare_passes([4, 0], [2, 2], 4, (1, 2), 0.95)
    assert (one.name, one.base, one.tuned) == ("pass@1 (sampled)", 0.5, 0.5)
    assert (two.name, two.base) == ("pass@2 (sampled)", 0.5)
    assert two.tuned == pytest.approx(5 / 6)
    assert two.low < two.difference < two.high
    assert (one.base_interval, one.tuned_interval) == ((0.0, 1.0), (0.5, 0.5))
    assert compare_passes([1], [2], 4, (1,), 0.95)[0].base_interval is None, "one prompt says nothing"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampling": {"answers": 5}}, "pass@10 needs as many answers, and answers is 5"),
        ({"sampling": {"pass_at": [1, 1]}}, "names a k twice: 1, 1"),
        ({"sampling": {"pass_at": []}}, "at least 1 item"),
        ({"sampling": {}, "sandbox": {"execute": "never"}}, "sandbox.execute is never; leave sampling out"),
    ],
)
def test_impossible_sampling(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationParameters.model_validate(given)


def test_sampled_answers_that_pass_are_counted() -> None:
    limits = limits_here(SandboxParameters(accept_risk=True))
    assert limits is not None
    rows = Dataset.from_dict(
        {
            "completion": ["x = 1", "y = TWO"],
            "tests": [["assert x == 1"], ["assert y == 2"]],
            "preamble": ["", "TWO = 2"],
        }
    )
    base = [["x = 1", "x = 2", "```\nx = 1\n```"], ["y = (", "", "y = 1"]]
    tuned = [["x = 1"] * 3, ["y = 1", "y = TWO", "x = 1"]]
    assert passed_samples(rows, [base, tuned], limits) == [[2, 0], [3, 1]]


def test_sampled_answers_meet_the_tests_that_count(tiny_run: TinyRun, tmp_path: Path) -> None:
    """One row's own solution fails its test, so three prompts count; greedy answers stay what they are without."""
    sandbox = SandboxParameters(accept_risk=True)
    rows = tiny_run.examples["test"].select(range(4))
    names = [row["completion"].partition("(")[0].removeprefix("def ") for row in rows]
    own = [f"assert {name}(1) == 1 + {name.rpartition('_')[2]}" for name in names]
    tests = [own[0], own[1], "assert False", own[3]]
    rows = rows.remove_columns("tests").add_column("tests", [[test] for test in tests])
    sampling = SamplingParameters(answers=3, temperature=1.5, top_p=0.9, pass_at=(1, 3))
    plain = EvaluationParameters(max_prompts=4, max_new_tokens=8, batch_size=3, noise_rows=0, sandbox=sandbox)
    folders = (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer)
    greedy = evaluate_adapter(rows, *folders, plain)
    kept = KeptAnswers(tmp_path / "base.jsonl", tmp_path / "tuned.jsonl")
    report = evaluate_adapter(rows, *folders, plain.model_copy(update={"sampling": sampling}), kept)
    assert len(kept.base.read_bytes().splitlines()) == 4 + 3 * 3
    kept.base.write_bytes(b"".join(kept.base.read_bytes().splitlines(keepends=True)[:7]))
    resumed = evaluate_adapter(rows, *folders, plain.model_copy(update={"sampling": sampling}), kept)
    assert resumed.decisive_json() == report.decisive_json(), "the other samples are drawn as they were"
    assert report.verdicts is not None
    assert report.verdicts.tested == 3
    figures = [figure.name for figure in report.figures]
    assert figures == [*(figure.name for figure in greedy.figures), "pass@1 (sampled)", "pass@3 (sampled)"]
    assert report.figures[:-2] == greedy.figures, "the greedy answers are what they were"
    assert report.samples == greedy.samples
    assert "3 answers to each prompt whose tests count, at temperature 1.5 and top-p 0.9" in report.html()
    assert "base_pass@1_(sampled)" in report.metadata()


def test_figures_of_every_kind_are_compared(tiny_run: TinyRun) -> None:
    """Validation, noise, and a figure of which neither direction is better, on both pages and in the table."""
    parameters = EvaluationParameters(
        max_prompts=4, max_new_tokens=8, noise_rows=3, sandbox=SandboxParameters(execute="never")
    )
    folders = (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer)
    validation = tiny_run.examples["validation"]
    report = evaluate_adapter(tiny_run.examples["test"], *folders, parameters, validation=validation)
    assert report.validation is not None
    assert report.validation.rows == len(validation)
    assert report.validation.tokens == sum(map(len, validation["completion_ids"]))
    loss, perplexity = report.validation.figures
    assert (loss.name, perplexity.name, loss.verdict) == ("loss", "perplexity", "better")
    assert loss.base != report.figure("loss").base
    assert {"base_validation_loss", "tuned_validation_perplexity", "base_length"} <= report.metadata().keys()
    assert "Training chose its checkpoint by the loss on the validation rows" in report.html()
    rows = compared([Evaluated(1, "one", report)])
    assert {"loss (nats/token)", "validation: loss (nats/token)", "length (tokens)"} <= {row[0] for row in rows}
    page = render(draw([Evaluated(1, "one", report)]))
    assert "lower is better" in page
    assert "neither" not in page
    assert type(report).model_validate_json(report.model_dump_json()) == report


def test_a_report_from_before_has_no_noise() -> None:
    values = {"name": "loss", "base": 2.0, "tuned": 1.0, "difference": -1.0, "low": -1.1, "high": -0.9}
    assert Figure.model_validate({**values, "unit": "", "better": "lower"}).noise is None
