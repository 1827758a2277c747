"""The history of runs as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import ArtifactVersionResponse, ModelVersionResponse, PipelineRunResponse

from pipelines.console import duration, plain_table, printed
from pipelines.labels import base_name, data_revisions, equal_to, label_finished
from pipelines.versions import outputs_of, require_model

COLUMNS = ("date", "run", "model", "data", "base", "loss", "stops", "parses", "stage", "cached", "took", "status")
WIDTH = 120


def history(model: str | None, count: int) -> list[list[str]]:
    """Rows under :data:`COLUMNS`, the newest run first.

    Args:
        model: only runs of this ZenML model; None: of all.
        count: at most so many.

    Raises:
        ModelError: ZenML has no such model.
    """
    if model is not None:
        require_model(model)
    found = _newest(model, count)
    if label_finished(found):
        found = _newest(model, count)
    return [row(run) for run in found]


def _newest(model: str | None, count: int) -> list[PipelineRunResponse]:
    return list(Client().list_pipeline_runs(model=model, sort_by="desc:created", size=count, hydrate=True).items)


def row(run: PipelineRunResponse) -> list[str]:
    """One run; what it did not come to is empty."""
    steps = run.steps
    outputs = outputs_of(run)
    cached = sum(step.status == ExecutionStatus.CACHED for step in steps.values())
    version = run.model_version
    figures = outputs["evaluation_report"].run_metadata if "evaluation_report" in outputs else {}
    return [
        f"{run.created:%Y-%m-%d %H:%M}",
        str(run.id)[:8],
        f"{version.model.name}:{version.number}" if version else "",
        _data(outputs),
        base_name(outputs["model_lock"]) if "model_lock" in outputs else "",
        _pair(figures, "loss", ".3f"),
        _pair(figures, "stops", ".0%"),
        _pair(figures, "parses", ".0%"),
        (version.stage or _unchanged(version)) if version else "",
        f"{cached}/{len(steps)}",
        duration((run.end_time - run.start_time).total_seconds()) if run.start_time and run.end_time else "",
        str(run.status),
    ]


def shown(rows: Sequence[Sequence[str]]) -> str:
    """The table as plain text."""
    if not rows:
        return "no runs yet\n"
    table = plain_table(COLUMNS, right=("cached", "took"), gap=1)
    for values in rows:
        table.add_row(*values)
    return printed(table, WIDTH)


def _unchanged(version: ModelVersionResponse) -> str:
    """``= tiny:1`` where the run made nothing new."""
    equal = equal_to(version)
    return f"= {equal}" if equal else ""


def _data(outputs: dict[str, ArtifactVersionResponse]) -> str:
    if "data_lock" not in outputs:
        return ""
    revisions = " ".join(data_revisions(outputs["data_lock"]))
    return f"{outputs['raw_rows'].run_metadata['rows']} @ {revisions}" if "raw_rows" in outputs else revisions


def _pair(figures: Mapping[str, Any], name: str, form: str) -> str:
    base, tuned = figures.get(f"base_{name}"), figures.get(f"tuned_{name}")
    return f"{base:{form}}>{tuned:{form}}" if base is not None and tuned is not None else ""
