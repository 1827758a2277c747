"""The model in production is asked as it serves, and its loss is counted in the candidate's tokens."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.kept import KeptAnswers, kept_answers
from steps.evaluate.losses import RowLoss
from steps.evaluate.params import EvaluationParameters, SandboxParameters
from steps.evaluate.production import Production, comparable
from steps.evaluate.report import EvaluationReport
from steps.evaluate.sets import Problem, renderer
from steps.evaluate.statistics import compare_losses
from steps.tokenizer import load_tokenizer
from tests.tiny_run import TinyRun

ASKED = EvaluationParameters(max_prompts=4, max_new_tokens=8, noise_rows=2, sandbox=SandboxParameters(execute="never"))


def evaluated(run: TinyRun, production: Production, kept: KeptAnswers | None = None) -> EvaluationReport:
    rows = run.examples["test"]
    return evaluate_adapter(rows, run.model, run.adapter, run.tokenizer, ASKED, kept, production=production)


def weaker(run: TinyRun, folder: Path) -> tuple[Path, Path, Path]:
    """The same adapter at a tenth of its strength."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(run.adapter, folder)
    path = folder / "adapter_model.safetensors"
    save_file({name: weight * (0.1 if "lora_B" in name else 1) for name, weight in load_file(path).items()}, path)
    return run.model, folder, run.tokenizer


def test_the_candidate_is_compared_with_production(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = weaker(tiny_run, tmp_path / "weaker")
    kept = kept_answers(
        str(tmp_path), tiny_run.model, tiny_run.adapter, tiny_run.tokenizer, ASKED.max_new_tokens, folders
    )
    report = evaluated(tiny_run, Production(7, folders), kept)
    assert report.production is not None
    loss = report.production.figures[0]
    assert (loss.name, loss.verdict, report.production.version) == ("loss", "better", 7)
    assert report.figure("loss").tuned == pytest.approx(loss.tuned, abs=1e-9)
    assert report.figure("loss").tuned < loss.base < report.figure("loss").base
    assert loss.noise == report.figure("loss").noise
    assert {figure.name for figure in report.production.figures} == {figure.name for figure in report.figures}
    assert report.metadata()["production_loss"] == pytest.approx(loss.base, abs=1e-4)
    assert report.metadata()["production_version"] == 7
    assert "Candidate against production, version 7" in report.html()

    kept.forget_tuned()
    other = kept_answers(str(tmp_path), tiny_run.model, folders[1], tiny_run.tokenizer, ASKED.max_new_tokens, folders)
    assert (other.production, other.base) == (kept.production, kept.base)
    assert other.tuned != kept.tuned
    capsys.readouterr()
    assert evaluated(tiny_run, Production(7, folders), kept).decisive_json() == report.decisive_json()
    assert "answers, production: 4 of 4 are there from before" in capsys.readouterr().out


def test_the_same_model_ties(tiny_run: TinyRun) -> None:
    """Its own chat template renders the rows as they were trained, so that every loss is the very same."""
    production = Production(1, (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer))
    report = evaluated(tiny_run, production).production
    assert report is not None
    assert {figure.verdict for figure in report.figures} == {"undecided"}
    assert max(abs(figure.difference) for figure in report.figures) < 1e-6
    render = renderer(load_tokenizer(tiny_run.tokenizer))
    for row in tiny_run.examples["test"]:
        found = render(Problem(row["row_id"], row["instruction"], row["completion"], ()))
        assert found == {name: row[name] for name in found}


def test_another_tokenizer_is_counted_in_the_candidates_tokens() -> None:
    """Twice the tokens for the same text, at half the nats each, are the same model."""
    production, candidate = [RowLoss(6.0, 12), RowLoss(2.0, 4)], [RowLoss(6.0, 6), RowLoss(2.0, 2)]
    loss, _ = compare_losses(comparable(production, candidate), candidate, 0.95)
    assert (loss.base, loss.tuned, loss.difference) == (1.0, 1.0, 0.0)


def test_what_cannot_be_asked_is_said(tiny_run: TinyRun, tmp_path: Path) -> None:
    gone = evaluated(tiny_run, Production(2, None, why_not="the version has no adapter any more")).production
    assert gone is not None
    assert gone.figures == []
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(tiny_run.tokenizer, tokenizer)
    template = tokenizer / "chat_template.jinja"
    refusal = "{% if 'Write' in messages[0]['content'] %}{{ raise_exception('not this') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    refused = evaluated(tiny_run, replace(Production(2, None), folders=(tiny_run.model, tiny_run.adapter, tokenizer)))
    assert refused.production is not None
    assert "its prompt template cannot render a test row" in refused.production.why_not
    assert "Not measured: its prompt template" in refused.html()
