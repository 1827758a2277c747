"""What a finished run says last: what ran, what it brought, and where the results lie."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse, StepRunResponse
from zenml.utils.dashboard_utils import get_run_url

from materializers.directory import FILES
from materializers.page import PAGE
from pipelines.console import duration, plain_console, plain_table, text_of
from pipelines.versions import outputs_of

if TYPE_CHECKING:
    from steps.evaluate.report import EvaluationReport, Sample
    from steps.promote.report import PromotionDecision

WIDTH = 80
"""Columns; paths may be longer, so that they can be copied whole."""

SHOWN_LINES = 12
"""Lines of a prompt or an answer."""

SHOWN_CHARACTERS = 300
"""Characters of such a line."""


def summarise(run: PipelineRunResponse) -> str:
    """The summary as plain text, 80 columns wide; cached steps count like those that ran."""
    console = plain_console(WIDTH)
    console.print(f"\nRun {run.name} finished\n")
    console.print(_steps(run))
    console.print()
    outputs = outputs_of(run)
    if "evaluation_report" in outputs:
        report: EvaluationReport = outputs["evaluation_report"].load()
        console.print(_figures(report))
        _print_sample(console, _telling_sample(report.samples))
    if "promotion_decision" in outputs:
        _print_decision(console, outputs["promotion_decision"].load())
    console.print("Where things are", soft_wrap=True)
    for name, place in _places(run):
        console.print(f"  {name:<20} {place}", soft_wrap=True)
    return text_of(console)


def _steps(run: PipelineRunResponse) -> Table:
    table = _table("step", "result", "duration")
    for name, step in run.steps.items():
        cached = step.status == ExecutionStatus.CACHED
        table.add_row(name, "cached" if cached else "ran", "" if cached else _duration(step))
    return table


def _table(first: str, *others: str) -> Table:
    return plain_table([first, *others], right=others)


def _duration(step: StepRunResponse) -> str:
    if step.start_time is None or step.end_time is None:
        return ""
    return duration((step.end_time - step.start_time).total_seconds())


def _figures(report: "EvaluationReport") -> Table:
    interval = f"difference ({report.confidence:.0%} interval)"
    table = _table("figure", "base", "tuned", interval, "verdict")
    for figure in report.figures:
        base, tuned, difference, bounds, verdict = figure.values()
        table.add_row(figure.name, base, tuned, f"{difference} ({bounds})", verdict)
    return table


def _telling_sample(samples: "list[Sample]") -> "Sample":
    """The first prompt to which base and tuned give different answers, if there is one."""
    return next((sample for sample in samples if sample.base_answer != sample.tuned_answer), samples[0])


def _print_sample(console: Console, sample: "Sample") -> None:
    answers = {
        "One prompt": sample.instruction,
        "Base answers": sample.base_answer,
        "Tuned answers": sample.tuned_answer,
    }
    for title, text in answers.items():
        lines = text.strip().splitlines() or ["(nothing)"]
        more = [f"... {len(lines) - SHOWN_LINES} more lines"] if len(lines) > SHOWN_LINES else []
        console.print(f"\n{title}")
        for line in [*lines[:SHOWN_LINES], *more]:
            console.print(Padding(Text(line[:SHOWN_CHARACTERS], overflow="fold"), (0, 0, 0, 2)))


def _print_decision(console: Console, decision: "PromotionDecision") -> None:
    console.print(f"\nPromoted to {decision.stage}" if decision.promoted else f"\nNot promoted to {decision.stage}")
    for condition in decision.conditions:
        console.print(f"  {'met    ' if condition.passed else 'NOT met'}  {condition.name}")
        console.print(Padding(Text(condition.detail), (0, 0, 0, 11)))
    console.print()


def _places(run: PipelineRunResponse) -> Iterator[tuple[str, str]]:
    outputs = outputs_of(run)
    for name in ("merged_model", "exported_model"):
        if name in outputs:
            yield name.replace("_", " "), f"{outputs[name].uri}/{FILES}"
    for name, artifact in outputs.items():
        if name.endswith(("_report", "_decision")):
            yield name.replace("_", " "), f"{artifact.uri}/{PAGE}"
    yield "dashboard", "make dashboard"
    yield (
        "run page",
        get_run_url(run) or f"/projects/{Client().active_project.name}/runs/{run.id} on the dashboard",
    )
