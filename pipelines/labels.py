"""Tags and figures of a finished run's model version, also where its steps came from the cache.

ZenML links the artifacts of cached steps to the new version itself; what a step logs for its version, and the stage
that it gives, belong to the version of the run in which it really ran.
"""

from collections.abc import Iterable
from typing import Any

from zenml import log_metadata
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import ArtifactVersionResponse, ModelVersionResponse, PipelineRunResponse

from materializers.record import figures_of
from pipelines.versions import outputs_of
from steps.lineage.sources import revision

EQUALS = "equals"
"""Metadata of a version whose run made nothing new: the version, ``MODEL:NUMBER``, whose run made its artifacts."""

UNCHANGED = "unchanged"
ALWAYS_RUNS = "resolve"
FIGURES = ("evaluation_report", "promotion_decision")


def label(run: PipelineRunResponse) -> None:
    """Tag the run's model version with base, data and decision, and log the figures that people compare.

    A run whose every step but ``resolve`` was cached makes a version all the same, so that each run has one; it is
    tagged ``unchanged``, has no stage, and says which version it equals.
    """
    version = run.model_version
    if version is None:
        return
    outputs = outputs_of(run)
    figures: dict[str, Any] = {
        key: value
        for name in FIGURES
        if name in outputs
        for key, value in figures_of(outputs[name].run_metadata).items()
    }
    equals = _equals(run, outputs)
    if equals:
        figures[EQUALS] = equals
    missing = {key: value for key, value in figures.items() if key not in version.run_metadata}
    if missing:
        log_metadata(metadata=missing, model_version_id=version.id)
    tags = [*_tags(outputs), *([UNCHANGED] if equals else [])]
    Client().update_model_version(version.model.id, version.id, add_tags=tags)


def label_finished(runs: Iterable[PipelineRunResponse]) -> bool:
    """Label those that came to their end without a client that waited, such as those of a cluster's schedule.

    Returns:
        Whether there were any: what was read of their versions is out of date then.
    """
    waiting = [
        run
        for run in runs
        if run.status == ExecutionStatus.COMPLETED and run.model_version is not None and not run.model_version.tags
    ]
    for run in waiting:
        label(run)
    return bool(waiting)


def equal_to(version: ModelVersionResponse) -> str:
    """The version whose artifacts all of this one's are, ``MODEL:NUMBER``; empty if its run made something."""
    return str(version.run_metadata.get(EQUALS, ""))


def _equals(run: PipelineRunResponse, outputs: dict[str, ArtifactVersionResponse]) -> str:
    cached = all(step.status == ExecutionStatus.CACHED for name, step in run.steps.items() if name != ALWAYS_RUNS)
    decision = outputs.get("promotion_decision")
    if not cached or decision is None or decision.producer_pipeline_run_id is None:
        return ""
    made = Client().get_pipeline_run(decision.producer_pipeline_run_id).model_version
    return f"{made.model.name}:{made.number}" if made else ""


def base_name(lock: ArtifactVersionResponse) -> str:
    """The base model's own name, without its owner or folder."""
    return str(lock.load().name).rstrip("/").rpartition("/")[2]


def data_revisions(lock: ArtifactVersionResponse) -> list[str]:
    """Seven characters of each source's revision."""
    return [revision(source).removeprefix("sha256:")[:7] for source in lock.load().sources]


def _tags(outputs: dict[str, ArtifactVersionResponse]) -> list[str]:
    tags = []
    if "model_lock" in outputs:
        tags.append(f"base-{base_name(outputs['model_lock'])}")
    if "data_lock" in outputs:
        tags += [f"data-{revision}" for revision in data_revisions(outputs["data_lock"])]
    if "promotion_decision" in outputs:
        tags.append("promoted" if outputs["promotion_decision"].run_metadata["promoted"] else "kept-back")
    return sorted(set(tags))
