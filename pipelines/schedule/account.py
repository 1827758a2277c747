"""What a finished run did, in a few lines: what had changed, what ran, what was compared, and what came of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from materializers.registry import PRODUCTION, holder
from pipelines.console import duration
from pipelines.labels import ALWAYS_RUNS, equal_to
from pipelines.versions import outputs_of

if TYPE_CHECKING:
    from steps.evaluate.report import EvaluationReport
    from steps.ingest.report import IngestReport
    from steps.promote.report import PromotionDecision


def account(run: PipelineRunResponse, seconds: float) -> Iterator[str]:
    """Its lines; the last one says it all."""
    ran = [name for name, step in run.steps.items() if step.status == ExecutionStatus.COMPLETED]
    version = run.model_version
    name = f"{version.model.name}:{version.number}" if version else run.name
    production = _in_production(run)
    if run.status != ExecutionStatus.COMPLETED:
        yield f"{run.name} is {run.status}; see how it goes with: qlora runs"
    elif ran == [ALWAYS_RUNS]:
        made = f" as {equal_to(version)} made it" if version and equal_to(version) else ""
        yield f"nothing changed: all but {ALWAYS_RUNS} came from the cache{made}; {production}; {duration(seconds)}"
    else:
        cached = [name for name in run.steps if name not in ran]
        yield f"ran: {', '.join(ran)}; from the cache: {', '.join(cached) or 'none'}"
        yield from _data(run, ran)
        yield from _figures(run)
        verb = "retrained" if "train" in ran else "evaluated" if "evaluate" in ran else "ran"
        yield f"{verb}, {_decision(run, name)}; {production}; {duration(seconds)}"


def _data(run: PipelineRunResponse, ran: list[str]) -> Iterator[str]:
    if "ingest" not in ran:
        return
    report: IngestReport = outputs_of(run)["ingest_report"].load()
    if report.drift is not None:
        drift = report.drift
        yield (
            f"rows since the former run: {drift.previous_rows} before, {drift.new} new, {drift.changed} changed, "
            f"{drift.gone} gone"
        )


def _figures(run: PipelineRunResponse) -> Iterator[str]:
    """The loss, and what else is decidedly better or worse."""
    report: EvaluationReport = outputs_of(run)["evaluation_report"].load()
    compared = [("base", report.figures)]
    if report.production is not None:
        compared.append((f"version {report.production.version} in production", report.production.figures))
    for against, figures in compared:
        telling = [one for one in figures if one.name == "loss" or one.verdict in ("better", "worse")]
        told = [f"{one.name} {one.show(one.base)} > {one.show(one.tuned)} {one.verdict}" for one in telling]
        if told:
            yield f"against {against}: {', '.join(told)}"


def _decision(run: PipelineRunResponse, name: str) -> str:
    decision: PromotionDecision = outputs_of(run)["promotion_decision"].load()
    if decision.promoted:
        return f"{name} promoted to {decision.stage}"
    reasons = "; ".join(f"{one.name}: {one.detail}" for one in decision.conditions if not one.passed)
    return f"{name} not promoted to {decision.stage} ({reasons})"


def _in_production(run: PipelineRunResponse) -> str:
    version = run.model_version
    present = holder(version.model.name, PRODUCTION) if version else None
    return f"in production: {present.model.name}:{present.number}" if present else "nothing in production"
