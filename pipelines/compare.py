"""The evaluations of runs or model versions side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from pipelines.console import plain_console, plain_table, text_of
from pipelines.versions import model_version, outputs_of, run_named
from steps.errors import ModelError
from steps.page import COLOURS, Page, Section, Table, figure, svg

if TYPE_CHECKING:
    from steps.evaluate.report import EvaluationReport, Figure

COLUMNS = ("figure", "of", "base", "tuned", "difference", "interval", "verdict")
WIDTH = 100


@dataclass(frozen=True)
class Evaluated:
    """One run's or model version's evaluation, by the number that stands for it."""

    number: int
    name: str
    report: "EvaluationReport"


def evaluations_of(names: Sequence[str]) -> list[Evaluated]:
    """The evaluation of each: the name or id of a run, or its beginning, or ``MODEL:VERSION`` (a number or a stage).

    Raises:
        ModelError: there is no such run or version, or it has not come as far as evaluate.
    """
    return [Evaluated(number, name, _report(name)) for number, name in enumerate(names, start=1)]


def _report(name: str) -> "EvaluationReport":
    model, colon, version = name.rpartition(":")
    if colon:
        artifact = model_version(model, version).get_artifact("evaluation_report")
    else:
        artifact = outputs_of(run_named(name)).get("evaluation_report")
    if artifact is None:
        raise ModelError(f"{name}: it has no evaluation; compare those that came as far as the step evaluate")
    report: EvaluationReport = artifact.load()
    return report


def compared(evaluations: Sequence[Evaluated]) -> list[list[str]]:
    """Rows under :data:`COLUMNS`: each figure of each evaluation, equal figures below each other."""
    return [
        [f"{name} ({one.unit})" if one.unit else name, str(evaluated.number), *one.values()]
        for name in _figure_names(evaluations)
        for evaluated, one in _having(evaluations, name)
    ]


def cautions(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    """What keeps figures from being compared: other rows, other limits."""
    for one, other in combinations(evaluations, 2):
        if _asked(one.report) != _asked(other.report):
            yield f"{one.number} and {other.number} measured other rows: compare their differences, not their values."
        if one.report.max_new_tokens != other.report.max_new_tokens:
            limits = f"{one.report.max_new_tokens} and {other.report.max_new_tokens}"
            yield f"{one.number} and {other.number} cut answers at {limits} tokens."
        if one.report.confidence != other.report.confidence:
            yield f"{one.number} and {other.number} have intervals of different confidence."


def shown(evaluations: Sequence[Evaluated]) -> str:
    """The comparison for a terminal."""
    console = plain_console(WIDTH)
    for one in evaluations:
        console.print(f"{one.number}  {one.name}", soft_wrap=True)
    console.print()
    table = plain_table(COLUMNS, right=COLUMNS[2:])
    last = ""
    for name, *values in compared(evaluations):
        table.add_row("" if name == last else name, *values)
        last = name
    console.print(table)
    for caution in cautions(evaluations):
        console.print(caution)
    return text_of(console)


def draw(evaluations: Sequence[Evaluated]) -> Page:
    """The comparison as a page: the table, then each figure's differences with their intervals."""
    names = "\n".join(f"{one.number}  {one.name}" for one in evaluations)
    confidences = sorted({f"{one.report.confidence:.0%}" for one in evaluations})
    return Page(
        title=f"{len(evaluations)} evaluations compared",
        lead=f"Differences are tuned - base of the same evaluation, with {' and '.join(confidences)} intervals.",
        sections=[
            Section("Compared", text="\n".join([names, *cautions(evaluations)])),
            Section("Figures", table=Table(COLUMNS, compared(evaluations))),
            *(Section(name, figures=[_intervals(_having(evaluations, name))]) for name in _figure_names(evaluations)),
        ],
    )


def _intervals(having: "Sequence[tuple[Evaluated, Figure]]") -> str:
    drawing, axes = figure(height=0.8 + 0.35 * len(having))
    for place, (_, one) in enumerate(having):
        bounds = [[max(one.difference - one.low, 0)], [max(one.high - one.difference, 0)]]
        axes.errorbar([one.difference], [place], xerr=bounds, fmt="o", color=COLOURS[0], capsize=4)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(having)), [str(evaluated.number) for evaluated, _ in having])
    axes.set_ylim(len(having) - 0.5, -0.5)
    unit = having[0][1].unit
    better = having[0][1].better
    axes.set_xlabel(
        f"tuned - base{f', {unit}' if unit else ''}{f'; {better} is better' if better != 'neither' else ''}"
    )
    return svg(drawing)


def _figure_names(evaluations: Sequence[Evaluated]) -> list[str]:
    return list(dict.fromkeys(name for one in evaluations for name in _figures(one.report)))


def _figures(report: "EvaluationReport") -> "dict[str, Figure]":
    return report.named_figures(": ")


def _having(evaluations: Sequence[Evaluated], name: str) -> "list[tuple[Evaluated, Figure]]":
    return [(one, figures[name]) for one in evaluations if name in (figures := _figures(one.report))]


def _asked(report: "EvaluationReport") -> tuple[object, ...]:
    return report.loss_rows, report.loss_tokens, *(sample.row_id for sample in report.samples)
