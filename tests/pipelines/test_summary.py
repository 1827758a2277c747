"""The summary at the end of a run, from the artifacts of real runs: a first one and a cached one."""

import math
from pathlib import Path
from typing import Annotated

import pytest
from zenml import step
from zenml.models import PipelineRunResponse

from materializers.directory import DirectoryMaterializer
from materializers.local import output_directory
from materializers.report import ReportMaterializer
from pipelines.strict import strict_pipeline
from pipelines.summary import summarise
from steps.artifacts import MergedModel
from steps.evaluate.report import EvaluationReport
from steps.promote.report import Condition, PromotionDecision
from steps.split.params import SplitParameters
from tests.evaluations import evaluation_report, figure, sample

ANSWER = "def double(x):\n    return 2 * x"


@step(output_materializers=ReportMaterializer)
def evaluate(splits: SplitParameters) -> Annotated[EvaluationReport, "evaluation_report"]:
    """A report with two figures and two samples; the answers differ in the second."""
    rambling = "Sure! " + "word " * 60 + "\n" * 20 + "end"
    return evaluation_report(
        [figure("completion loss", 2.05, 0.87, -1.3, -1.1), figure("only code", 0.05, 0.4, -math.inf, 0.5)],
        [sample("1", "Same", "x", "x"), sample("2", "Write double(x). [bold]Only code[/bold]", rambling, ANSWER)],
        seconds=float(splits.seed),
    )


@step(output_materializers=DirectoryMaterializer)
def merge(report: EvaluationReport) -> Annotated[MergedModel, "merged_model"]:
    """A directory with one file."""
    with output_directory() as folder:
        (folder / "config.json").write_text(f'{{"samples": {len(report.samples)}}}', encoding="utf-8")
        return MergedModel(folder)


@step(output_materializers=ReportMaterializer)
def promote(report: EvaluationReport, model: MergedModel) -> Annotated[PromotionDecision, "promotion_decision"]:
    """A decision with one condition met and one not."""
    met = Condition(name="loss falls", passed=True, detail=f"by {-report.figures[0].difference} nats")
    unmet = Condition(name="only code", passed=False, detail=f"{model.path.name} is undecided")
    return PromotionDecision(promoted=False, stage="staging", conditions=[met, unmet])


@strict_pipeline
def summed(splits: SplitParameters) -> None:
    """The three steps that a summary speaks of."""
    report = evaluate(splits)
    promote(report, merge(report))


def run() -> PipelineRunResponse:
    """Run the pipeline."""
    done = summed(SplitParameters())
    assert done is not None
    return done


@pytest.fixture(scope="module")
def first() -> PipelineRunResponse:
    """The first run."""
    return run()


def test_the_summary_says_what_the_run_brought(first: PipelineRunResponse) -> None:
    text = summarise(first)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "completion loss 2.050 0.870 -1.180 (-1.300 to -1.100) better" in lines
    assert "only code 5.0% 40.0% +35.0% (-inf% to +50.0%) undecided" in lines
    assert "Write double(x). [bold]Only code[/bold]" in lines
    assert " return 2 * x" in text
    assert "... 9 more lines" in lines
    assert "Not promoted to staging" in lines
    for line in ("met loss falls", "by 1.18 nats", "NOT met only code", "files is undecided"):
        assert line in lines
    assert any("make dashboard" in line for line in lines)
    assert any(str(first.id) in line for line in lines)


def test_the_paths_of_the_summary_exist(first: PipelineRunResponse) -> None:
    paths = [
        Path(line.split()[-1]) for line in summarise(first).splitlines() if line.strip().startswith(("m", "e", "p"))
    ]
    folder = next(path for path in paths if path.name == "files")
    pages = [path for path in paths if path.name == "page.html"]
    assert (folder / "config.json").is_file()
    assert len(pages) == 2
    assert all(page.is_file() for page in pages)


def test_only_paths_are_wider_than_80_columns(first: PipelineRunResponse) -> None:
    wide = [line for line in summarise(first).splitlines() if len(line) > 80]
    assert all("/" in line.split()[-1] or "dashboard" in line for line in wide)


def test_a_cached_run_has_the_same_figures(first: PipelineRunResponse) -> None:
    again = run()
    lines = [" ".join(line.split()) for line in summarise(again).splitlines()]
    assert "evaluate cached" in lines
    assert "completion loss 2.050 0.870 -1.180 (-1.300 to -1.100) better" in lines


def test_a_run_prints_its_summary_once(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    assert capsys.readouterr().out.count("Not promoted to staging") == 1
