"""Frees the disk of artifacts that no kept model version needs; reports and the history of runs stay."""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from zenml.artifact_stores import LocalArtifactStore
from zenml.client import Client
from zenml.enums import ExecutionStatus, ModelStages
from zenml.models import ArtifactVersionResponse, ModelVersionResponse, StepRunResponse
from zenml.utils.pagination_utils import depaginate

from materializers.dataset import DatasetDictMaterializer, DatasetMaterializer
from materializers.directory import DirectoryMaterializer
from materializers.local import local_path
from pipelines.console import plain_table, printed
from pipelines.versions import model_names, require_model
from steps.files import remove_unheld
from steps.train.checkpoint import default_root

LARGE = {kind.__name__ for kind in (DatasetMaterializer, DatasetDictMaterializer, DirectoryMaterializer)}
"""What is removed: models and data sets. Reports are small, and `qlora runs` and `qlora compare` read them."""

TAG = "pruned"
"""ZenML's tag of what was removed."""

LONG_AGO = datetime(2000, 1, 1)
"""When a removed artifact's cache entry expires: were it now, a clock that is set back would offer it again."""

DAYS = 30
"""Killed work that nothing was written to for so long is not gone on with: its inputs, code or libraries changed."""


@dataclass(frozen=True)
class Unneeded:
    """An artifact that goes, and the versions that link it."""

    artifact: ArtifactVersionResponse
    versions: tuple[ModelVersionResponse, ...]

    @property
    def bytes(self) -> int:
        """Its size in the artifact store, as ZenML measured it."""
        measured: Any = self.artifact.run_metadata.get("storage_size", 0)
        return int(measured)


def unneeded(keep: int, model: str | None) -> list[Unneeded]:
    """Models and data sets that no kept version needs.

    Kept are the versions in production and staging, those whose run is not finished, and of each model the newest
    ``keep`` and the newest ``keep`` that have a merged model. They need whatever their runs used, from the cache or
    not, and whatever that was made from.

    Args:
        keep: versions of each model.
        model: only versions of this model go; None: of all.

    Raises:
        ModelError: ZenML has no such model.
    """
    client = Client()
    if model is not None:
        require_model(model)
    names = model_names()
    versions = {name: depaginate(client.list_model_versions, model=name, hydrate=True) for name in names}
    linked = {one.id: _linked(one) for several in versions.values() for one in several}
    limits = {name: keep if model in (None, name) else None for name in names}
    kept = {one.id for name, several in versions.items() for one in _kept(several, linked, limits[name])}
    needed = set(_with_origins(artifact for version in kept for artifact in linked[version].values()))
    users: dict[UUID, list[ModelVersionResponse]] = {}
    found = {one.id: one for one in depaginate(client.list_artifact_versions, tags=TAG, hydrate=True)}
    for version in (one for several in versions.values() for one in several):
        for artifact in linked[version.id].values():
            found[artifact.id] = artifact
            users.setdefault(artifact.id, []).append(version)
    return [
        Unneeded(artifact, tuple(users.get(key, ())))
        for key, artifact in found.items()
        if key not in needed and artifact.materializer.attribute in LARGE and _is_there(artifact)
    ]


def remove(doomed: list[Unneeded], left: Iterable[Path] = ()) -> None:
    """Remove them so that whatever is left after a kill is never used, and is found by the next prune.

    First no step that made one is offered by ZenML's cache any more, then no version links one, and only then files
    go; until they are gone a tag says where to go on. ZenML keeps the record of an artifact that a run has used.
    """
    client = Client()
    logging.getLogger("zenml.client").setLevel(logging.WARNING)  # it would say each folder, which `shown` has said
    for step in {one.artifact.producer_step_run_id for one in doomed}:
        if step is not None:
            client.update_step_run(step, cache_expires_at=LONG_AGO)
    for one in doomed:
        client.update_artifact_version(one.artifact.id, add_tags=[TAG])
        for version in one.versions:
            client.delete_model_version_artifact_link(version.id, one.artifact.id)
    for one in doomed:
        client.delete_artifact_version(one.artifact.id, delete_metadata=False, delete_from_artifact_store=True)
    for folder in left:
        remove_unheld(folder)


def abandoned() -> list[Path]:
    """Folders of checkpoints and of merged shards that killed work left ``DAYS`` ago; each has its lock beside it.

    They are looked for in the user's cache folder and in the active stack's store, where that is a local disk. Each
    checkpoint or shard begins as a new entry in its folder, whose own time is thus that of the newest.
    """
    store = Client().active_stack.artifact_store
    shards = Path(store.path).glob(".merge-*") if isinstance(store, LocalArtifactStore) else ()
    found, before = (*default_root().glob("?" * 32), *shards), time.time() - DAYS * 86400
    return [folder for folder in found if folder.is_dir() and folder.stat().st_mtime < before]


def shown(doomed: list[Unneeded], left: list[Path]) -> str:
    """What goes and how much it is."""
    table = plain_table(("version", "what", "size"), right=("size",))
    for one in sorted(doomed, key=lambda one: one.artifact.created):
        names = ", ".join(f"{version.model.name}:{version.number}" for version in one.versions) or "half removed"
        table.add_row(names, one.artifact.artifact.name, size(one.bytes))
    killed = sum(path.stat().st_size for folder in left for path in folder.rglob("*") if path.is_file())
    if left:
        table.add_row("killed work", f"{len(left)} folders, not touched for {DAYS} days", size(killed))
    table.add_row("", "together, on the disk", size(freed_bytes(doomed) + killed))
    return printed(table, 100)


def freed_bytes(doomed: list[Unneeded]) -> int:
    """What the disk gets back: of a local store, files whose every name goes, since equal ones are one file there."""
    store = Client().active_stack.artifact_store
    folders = [local_path(one.artifact.uri, store) for one in doomed]
    names: Counter[int] = Counter()
    files: dict[int, os.stat_result] = {}
    for path in (path for folder in folders if folder for path in folder.rglob("*") if path.is_file()):
        about = path.stat()
        names[about.st_ino] += 1
        files[about.st_ino] = about
    local = sum(about.st_size for number, about in files.items() if names[number] == about.st_nlink)
    return local + sum(one.bytes for one, folder in zip(doomed, folders, strict=True) if folder is None)


def size(count: int) -> str:
    """Bytes as people read them."""
    if count >= 1e8:
        return f"{count / 1e9:,.2f} GB"
    return f"{count / 1e6:,.2f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _kept(
    versions: list[ModelVersionResponse],
    linked: dict[UUID, dict[str, ArtifactVersionResponse]],
    keep: int | None,
) -> Iterator[ModelVersionResponse]:
    """Those of one model; all where ``keep`` is None."""
    newest = sorted(versions, key=lambda one: one.number, reverse=True)
    yield from newest[:keep]
    if keep is not None:
        yield from [one for one in newest if "merged_model" in linked[one.id]][:keep]
        yield from (one for one in newest if one.stage in (ModelStages.PRODUCTION, ModelStages.STAGING))
        yield from (one for one in newest if _running(one))


def _is_there(artifact: ArtifactVersionResponse) -> bool:
    """Whether it has files in the active stack's store; what lies in another one is left alone."""
    store = Client().active_stack.artifact_store
    return artifact.artifact_store_id == store.id and bool(store.exists(artifact.uri))


def _running(version: ModelVersionResponse) -> bool:
    runs = depaginate(Client().list_pipeline_runs, model_version_id=version.id)
    return any(not ExecutionStatus(run.status).is_finished for run in runs)


def _linked(version: ModelVersionResponse) -> dict[str, ArtifactVersionResponse]:
    found = depaginate(Client().list_artifact_versions, model_version_id=version.id, hydrate=True)
    return {one.artifact.name: one for one in found}


def _with_origins(artifacts: Iterable[ArtifactVersionResponse]) -> Iterator[UUID]:
    """These artifacts, all that their steps made with them, and all that they were made from."""
    waiting, steps = list(artifacts), set[UUID]()
    while waiting:
        artifact = waiting.pop()
        yield artifact.id
        if (made_by := artifact.producer_step_run_id) is not None and made_by not in steps:
            steps.add(made_by)
            step: StepRunResponse = Client().get_run_step(made_by)
            waiting += [one for found in step.outputs.values() for one in found]
            waiting += [one for found in step.inputs.values() for one in found]
