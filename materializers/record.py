"""What ZenML and this machine know while a step stores a directory: the record that goes into its provenance."""

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from zenml.artifact_stores import BaseArtifactStore
from zenml.client import Client
from zenml.models import ArtifactVersionResponse, StepRunResponse
from zenml.steps.step_context import StepContext

from materializers.local import stored_json
from steps.files import sha256_of
from steps.lineage.sources import revision
from steps.provenance import PROVENANCE
from steps.record import ArtifactRecord, Record, RunRecord, Scalar, SourceRecord, files_of, read_record, write_record
from steps.resolve.environment import describe_environment

DATA = ("raw_rows", "rows", "split_rows", "examples", "blocks")
"""Data sets by the names of their artifacts, in the order of the steps."""

REPORTS = ("validation_report", "split_report", "quantization_report", "training_report", "evaluation_report")


def record_directory(folder: Path, store: BaseArtifactStore) -> dict[str, str]:
    """Complete the folder's ``provenance.json``, if it has one and a step is storing it; SHA-256 of every file."""
    files = files_of(folder)
    if not (folder / PROVENANCE).is_file():
        return files
    context = StepContext.get()
    if context is not None:
        write_record(folder, _record(context, store).model_copy(update={"files": files}))
    return dict(sorted({**files, PROVENANCE: sha256_of(folder / PROVENANCE)}.items()))


def _record(context: StepContext, store: BaseArtifactStore) -> Record:
    run, step = Client().get_pipeline_run(context.pipeline_run.id), context.step_run
    model = run.model_version
    before = list(_upstream(step, run.steps))
    outputs = {name: found[0] for one in before for name, found in one.outputs.items()}
    data = [_artifact(name, outputs[name], store) for name in DATA if name in outputs]
    return Record(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        run=RunRecord(
            id=str(run.id),
            name=run.name,
            step=step.name,
            step_id=str(step.id),
            model=model.model.name if model else "",
            version=str(model.number) if model else "",
            version_id=str(model.id) if model else "",
        ),
        environment=describe_environment(),
        config={one.name: one.config.parameters for one in [*before, step]},
        sources=[
            SourceRecord(name=one.name, revision=revision(one), files=one.files)
            for one in (outputs["data_lock"].load().sources if data else [])
        ],
        data=data,
        figures={name: figures_of(outputs[name].run_metadata) for name in REPORTS if name in outputs},
        parents={name: _artifact(found[0].name, found[0], store) for name, found in step.inputs.items()},
    )


def _upstream(step: StepRunResponse, steps: Mapping[str, StepRunResponse]) -> Iterator[StepRunResponse]:
    """Every step that this one comes after, however indirectly, in the order in which they ran."""
    names, waiting = set[str](), list(step.spec.upstream_steps)
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting.extend(steps[name].spec.upstream_steps)
    return (one for name, one in steps.items() if name in names)


def _artifact(name: str, artifact: ArtifactVersionResponse, store: BaseArtifactStore) -> ArtifactRecord:
    rows = {key: value for key, value in artifact.run_metadata.items() if key == "rows" or key.endswith("_rows")}
    manifest = os.path.join(artifact.uri, "manifest.json")
    files: dict[str, str] = {}
    record: Record | None = None
    if store.exists(manifest):
        files = stored_json(manifest, store)
        with store.open(os.path.join(artifact.uri, "files", PROVENANCE), "r") as stream:
            parent = read_record(stream.read())
        record = parent.model_copy(update={"files": {}}) if parent else None  # they are in the manifest
    return ArtifactRecord(
        name=name,
        version=artifact.version,
        id=str(artifact.id),
        content_hash=artifact.content_hash or "",
        rows=rows if not files else {},
        files=files,
        record=record,
    )


def figures_of(metadata: Mapping[str, object]) -> dict[str, Scalar]:
    """The plain values of an artifact's metadata, without what ZenML adds."""
    return {name: value for name, value in metadata.items() if isinstance(value, Scalar) and name != "storage_size"}
