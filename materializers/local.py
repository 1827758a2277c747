"""The one difference between a local and a remote artifact store: whether a path can be used in place.

What crosses between the two is streamed: the ``copyfile`` of a remote store copies within that store alone.
"""

import atexit
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zenml.artifact_stores import BaseArtifactStore, LocalArtifactStore
from zenml.client import Client
from zenml.materializers.base_materializer import BaseMaterializer

from steps.errors import DeviceError
from steps.scratch import own_folder

BLOCK = 8 * 2**20
"""Bytes of a file that are in memory at a time while it is copied."""


def local_path(uri: str, store: BaseArtifactStore) -> Path | None:
    """The artifact's folder if the store is a local disk, else None."""
    return Path(uri) if isinstance(store, LocalArtifactStore) else None


def downloaded(materializer: BaseMaterializer, uri: str) -> Path:
    """A new local folder with every file below ``uri``; gone when the step ends, else when this process does."""
    with materializer.get_temporary_directory(delete_at_exit=False) as temporary:
        folder = Path(temporary)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = materializer.artifact_store
    for name in stored_files(uri, store):
        destination = folder / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        with store.open(os.path.join(uri, name), "rb") as stream, destination.open("wb") as target:
            shutil.copyfileobj(stream, target, BLOCK)
    return folder


def upload(source: Path, uri: str, store: BaseArtifactStore) -> None:
    """Copy every file below the local folder ``source`` to ``uri``."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            destination = os.path.join(uri, path.relative_to(source).as_posix())
            with path.open("rb") as stream, store.open(destination, "wb") as target:
                shutil.copyfileobj(stream, target, BLOCK)


def stored_json(path: str, store: BaseArtifactStore) -> dict[str, str]:
    """The texts by name in a JSON file of the store: hashes of an artifact's files."""
    with store.open(path, "r") as stream:
        found: dict[str, str] = json.load(stream)
    return found


def stored_files(uri: str, store: BaseArtifactStore) -> list[str]:
    """Every file below ``uri``, by its path relative to it."""
    found = (os.path.join(str(folder), str(name)) for folder, _, names in store.walk(uri) for name in names)
    return sorted(os.path.relpath(path, uri) for path in found)


def stored_hashes(uri: str, store: BaseArtifactStore) -> dict[str, str]:
    """SHA-256 of every file below ``uri``, read through the store."""
    digests = {}
    for name in stored_files(uri, store):
        with store.open(os.path.join(uri, name), "rb") as stream:
            digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


@contextmanager
def saving(uri: str, store: BaseArtifactStore) -> Iterator[None]:
    """Remove what was written below ``uri`` if the block fails; a full disk becomes one clear error."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # read-only, or remote and without a first file: the block's own error counts
            store.rmtree(uri)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DeviceError(
                f"{uri}: the disk of the artifact store is full; free some space, or point the store at a larger disk"
            ) from error
        raise


@contextmanager
def output_directory() -> Iterator[Path]:
    """A folder for a step to write a directory artifact into; the materializer takes the folder over.

    It lies on the artifact store's own disk where that is local, so that saving is a rename. Removed if the
    step fails; the next one removes what a killed process of this machine left behind.
    """
    store = Client().active_stack.artifact_store
    folder = own_folder(".step", Path(store.path if isinstance(store, LocalArtifactStore) else tempfile.gettempdir()))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
