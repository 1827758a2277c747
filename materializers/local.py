"""The one difference between a local and a remote artifact store: whether a path can be used in place."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zenml.artifact_stores import BaseArtifactStore, LocalArtifactStore
from zenml.client import Client

from steps.errors import DeviceError
from steps.scratch import own_folder


def local_path(uri: str, store: BaseArtifactStore) -> Path | None:
    """The artifact's folder if the store is a local disk, else None."""
    return Path(uri) if isinstance(store, LocalArtifactStore) else None


def download(uri: str, store: BaseArtifactStore, target: Path) -> None:
    """Copy every file below ``uri`` into the local folder ``target``."""
    for folder, _, names in store.walk(uri):
        for name in names:
            source = os.path.join(str(folder), str(name))
            destination = target / os.path.relpath(source, uri)
            destination.parent.mkdir(parents=True, exist_ok=True)
            store.copyfile(source, str(destination), overwrite=True)


def upload(source: Path, uri: str, store: BaseArtifactStore) -> None:
    """Copy every file below the local folder ``source`` to ``uri``."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            destination = os.path.join(uri, path.relative_to(source).as_posix())
            store.makedirs(os.path.dirname(destination))
            store.copyfile(str(path), destination, overwrite=True)


@contextmanager
def saving(uri: str, store: BaseArtifactStore) -> Iterator[None]:
    """Remove what was written below ``uri`` if the block fails; a full disk becomes one clear error."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # the store may have become read-only: the block's own error says so
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
