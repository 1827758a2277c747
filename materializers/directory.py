"""Materializer of the artifacts that are directories: tokenizer, quantised model, adapter, merged model."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.local import download, local_path, saving, upload
from materializers.page import PAGE, directory_page
from materializers.record import record_directory
from materializers.shared import share_equal_files
from steps.artifacts import Directory
from steps.errors import ModelError
from steps.files import digest_of, hashes
from steps.provenance import PROVENANCE, with_decisive

FILES = "files"
MANIFEST = "manifest.json"


class DirectoryMaterializer(BaseMaterializer):
    """Keeps the directory as it is under ``files/``, with every file's SHA-256 in ``manifest.json``.

    Saving moves the step's directory into a local store, where equal files are one. Loading checks the hashes and gives
    the stored folder in place; from a remote store the files are downloaded first.
    """

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Directory,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save(self, data: Directory) -> None:
        """Store the directory and its manifest; nothing stays behind if that fails."""
        manifest = record_directory(data.path, self.artifact_store)
        folder = local_path(self.uri, self.artifact_store)
        try:
            with saving(self.uri, self.artifact_store):
                if folder is None:
                    upload(data.path, os.path.join(self.uri, FILES), self.artifact_store)
                else:
                    shutil.move(data.path, folder / FILES)
                with self.artifact_store.open(os.path.join(self.uri, MANIFEST), "w") as stream:
                    json.dump(manifest, stream, indent=1)
                if folder is not None:
                    share_equal_files(folder, MANIFEST, f"{FILES}/{{}}")
        finally:
            shutil.rmtree(data.path, ignore_errors=True)
        data.when_stored()

    def load(self, data_type: type[Any]) -> Any:
        """The directory, after its files were found to be those that were saved."""
        folder = local_path(self.uri, self.artifact_store)
        if folder is None:
            path = Path(tempfile.mkdtemp(prefix="artifact-"))
            download(os.path.join(self.uri, FILES), self.artifact_store, path)
        else:
            path = folder / FILES
        verify(path, self._manifest())
        return data_type(path)

    def save_visualizations(self, data: Directory) -> dict[str, VisualizationType]:
        """A page that lists the files with their sizes and hashes."""
        folder = local_path(self.uri, self.artifact_store)
        page = directory_page(type(data).__name__, self._manifest(), folder / FILES if folder else None)
        path = os.path.join(self.uri, PAGE)
        with self.artifact_store.open(path, "w") as stream:
            stream.write(page)
        return {path: VisualizationType.HTML}

    def compute_content_hash(self, data: Directory) -> str:
        """Hash of the manifest: equal files give an equal hash, whatever run wrote them.

        Of ``provenance.json`` only what the directory was made from counts, not the record of when and where.
        """
        manifest = self._manifest()
        if PROVENANCE in manifest:
            with self.artifact_store.open(os.path.join(self.uri, FILES, PROVENANCE), "r") as stream:
                manifest = with_decisive(manifest, stream.read())
        return digest_of(manifest)

    def _manifest(self) -> dict[str, str]:
        with self.artifact_store.open(os.path.join(self.uri, MANIFEST), "r") as stream:
            manifest: dict[str, str] = json.load(stream)
        return manifest


def verify(path: Path, manifest: dict[str, str]) -> None:
    """Raise :class:`ModelError` that names the first file that is missing, new or changed since it was saved."""
    found = hashes(path) if path.is_dir() else {}
    for name in sorted(manifest.keys() | found.keys()):
        if manifest.get(name) != found.get(name):
            state = "missing" if name not in found else "not in its manifest" if name not in manifest else "changed"
            raise ModelError(
                f"{path / name}: the stored file is {state}; restore it, or delete the artifact version so that its "
                "step runs again"
            )
