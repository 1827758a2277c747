"""The lineage of a model version, of a run's model or of a folder, with every hash checked that can be checked here."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from uuid import UUID

from rich.text import Text
from rich.tree import Tree
from zenml.artifact_stores import BaseArtifactStore
from zenml.client import Client
from zenml.enums import ModelStages, StackComponentType
from zenml.models import ArtifactVersionResponse, ModelVersionResponse
from zenml.stack import StackComponent

from materializers.dataset import ARROW, SPLITS, DatasetDictMaterializer, DatasetMaterializer
from materializers.directory import FILES, DirectoryMaterializer
from materializers.local import stored_hashes, stored_json
from pipelines.console import printed
from pipelines.labels import equal_to, label_finished
from pipelines.versions import model_version, outputs_of, run_named, version_in_stage
from steps.errors import ModelError
from steps.files import differences, digest_of
from steps.lineage.report import DIRECTORY, Lineage
from steps.lineage.tell import Figures, artifacts_of, tell
from steps.provenance import PROVENANCE
from steps.record import ArtifactRecord, check_folder, read_record

WIDTH = 120
REPORTS = ("training_report", "evaluation_report", "merge_report", "promotion_decision")


@dataclass(frozen=True)
class Subject:
    """A directory whose lineage is asked for, and the numbers of the reports of its version."""

    name: str
    folder: Path
    figures: Figures


def lineage_of(name: str | None) -> Lineage:
    """The lineage of what is named, its hashes checked.

    Args:
        name: ``MODEL:VERSION``, the name or id of a run, or a folder; None: the newest version of the only model.

    Raises:
        ModelError: there is no such thing, or it has no model.
    """
    subject = _subject(name)
    path = subject.folder / PROVENANCE
    if not path.is_file():
        raise ModelError(f"{path}: missing; it says where the model comes from")
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        lineage = tell(subject.name, text, subject.figures)
    except (ValueError, KeyError) as error:
        raise ModelError(f"{path}: changed, it can no longer be read ({str(error).splitlines()[0]})") from error
    return lineage.checked(states(subject.folder, text))


def states(folder: Path, provenance: str) -> dict[str, str]:
    """``verified``, ``changed: FILES`` or ``not here`` of the directory and of every artifact that it names."""
    record = read_record(provenance)
    if record is None:
        return {}
    found = {DIRECTORY: _state(folder, check_folder(folder, record))}
    for one in {one.id: one for one in artifacts_of(record)}.values():
        found[one.id] = _artifact_state(one)
    return found


def wrong(lineage: Lineage) -> list[str]:
    """A line for each thing whose bytes are not those that were recorded."""
    entries = [entry for branch in lineage.branches for entry in branch.entries]
    return [f"{entry.name}: {entry.state}" for entry in entries if entry.state.startswith("changed")]


def shown(lineage: Lineage) -> str:
    """The lineage as a tree for a terminal; long values are folded, never cut."""
    tree = Tree(Text(lineage.name))
    for branch in lineage.branches:
        twig = tree.add(Text(branch.title))
        names = max(len(entry.name) for entry in branch.entries)
        for entry in branch.entries:
            state = f"  [{entry.state}]" if entry.state else ""
            twig.add(Text(f"{entry.name:<{min(names, 40)}}  {entry.value}{state}", overflow="fold"))
    return printed(tree, WIDTH)


def _subject(name: str | None) -> Subject:
    if name is None:
        return _of_version(version_in_stage(ModelStages.LATEST, None, "name one: qlora lineage MODEL:VERSION"))
    if Path(name).is_dir():
        return Subject(name, Path(name), _figures_beside(Path(name)))
    model, colon, version = name.rpartition(":")
    if colon:
        return _of_version(model_version(model, version))
    run = run_named(name, "neither a folder nor")
    outputs = outputs_of(run)
    if "merged_model" not in outputs:
        raise ModelError(f"{name}: it has no merged model; name a run that came as far as the step merge")
    figures = {key: outputs[key].run_metadata for key in REPORTS if key in outputs}
    return Subject(run.name, _folder(outputs["merged_model"]), figures)


def _of_version(version: ModelVersionResponse) -> Subject:
    name = f"{version.model.name}:{version.number}"
    artifact = version.get_artifact("merged_model")
    if artifact is None:
        raise ModelError(f"{name}: it has no merged model; run it to its end, or it was pruned")
    if not version.tags and label_finished(
        Client().list_pipeline_runs(model_version_id=version.id, hydrate=True).items
    ):
        version = Client().get_model_version(version.model.id, version.id)
    equal = equal_to(version)
    return Subject(f"{name}, unchanged from {equal}" if equal else name, _folder(artifact), _figures(version))


def _figures(version: ModelVersionResponse) -> Figures:
    found = {name: version.get_artifact(name) for name in REPORTS}
    return {name: artifact.run_metadata for name, artifact in found.items() if artifact is not None}


def _figures_beside(folder: Path) -> Figures:
    """Of a folder: what this machine's ZenML knows of the version that made it; nothing elsewhere."""
    path = folder / PROVENANCE
    try:
        record = read_record(path.read_text(encoding="utf-8"))
        version = Client().get_model_version(record.run.model, UUID(record.run.version_id)) if record else None
    except (KeyError, ValueError, OSError):
        return {}
    return _figures(version) if version else {}


def _folder(artifact: ArtifactVersionResponse) -> Path:
    """Where the files lie; from a remote store they are fetched, and checked as they are loaded."""
    local = Path(artifact.uri) / FILES
    folder: Path = local if local.is_dir() else artifact.load().path
    return folder


def _artifact_state(one: ArtifactRecord) -> str:
    try:
        artifact = Client().get_artifact_version(UUID(one.id))
    except KeyError:
        return "not here"
    store = _store_of(artifact)
    if not store.exists(artifact.uri):
        return "not here"
    return _state(artifact.uri, list(_wrong_files(one, artifact, store)))


def _store_of(artifact: ArtifactVersionResponse) -> BaseArtifactStore:
    """The store that has it, whichever stack is active."""
    active = Client().active_stack.artifact_store
    if artifact.artifact_store_id == active.id:
        return active
    component = Client().get_stack_component(StackComponentType.ARTIFACT_STORE, artifact.artifact_store_id)
    return cast(BaseArtifactStore, StackComponent.from_model(component))


def _wrong_files(one: ArtifactRecord, artifact: ArtifactVersionResponse, store: BaseArtifactStore) -> Iterator[str]:
    kind = artifact.materializer.attribute
    if kind == DirectoryMaterializer.__name__:
        yield from differences(stored_hashes(f"{artifact.uri}/{FILES}", store), one.files)
    elif kind in (DatasetMaterializer.__name__, DatasetDictMaterializer.__name__):
        yield from _wrong_splits(one, artifact.uri, store)
    else:
        try:
            content = artifact.load().decisive_json()
        except ValueError:
            content = ""  # no longer a report at all
        if hashlib.sha256(content.encode()).hexdigest() != one.content_hash:
            yield "changed: report.json"


def _wrong_splits(one: ArtifactRecord, uri: str, store: BaseArtifactStore) -> Iterator[str]:
    """Each Arrow file against ``splits.json``, and that file against the recorded content hash."""
    recorded = stored_json(f"{uri}/{SPLITS}", store)
    files = stored_hashes(uri, store).items()
    found = {name.removesuffix(ARROW): digest for name, digest in files if name.endswith(ARROW)}
    yield from (f"{difference}{ARROW}" for difference in differences(found, recorded))
    if digest_of(recorded) != one.content_hash:
        yield f"changed: {SPLITS}"


def _state(place: Path | str, differing: list[str]) -> str:
    if not differing:
        return "verified"
    return f"changed: {', '.join(one.removeprefix('changed: ') for one in differing)} in {place}"
