"""Materializer of the artifacts that are directories: tokenizer, quantised model, adapter, merged model."""

import json
import os
import shutil
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.local import downloaded, local_path, saving, stored_json, upload
from materializers.page import directory_page, save_page
from materializers.record import record_directory
from materializers.shared import share_equal_files
from steps.artifacts import Directory
from steps.errors import ModelError
from steps.files import differences, digest_of, hashes
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
        files = os.path.join(self.uri, FILES)
        path = local_path(files, self.artifact_store) or downloaded(self, files)
        wrong = differences(hashes(path) if path.is_dir() else {}, self._manifest())
        if wrong:
            raise ModelError(
                f"{files}: {', '.join(wrong)}; restore the stored files, or delete the artifact version so that its "
                "step runs again"
            )
        return data_type(path)

    def save_visualizations(self, data: Directory) -> dict[str, VisualizationType]:
        """A page that lists the files with their sizes and hashes."""
        manifest = self._manifest()
        sizes = {name: self.artifact_store.size(os.path.join(self.uri, FILES, name)) or 0 for name in manifest}
        return save_page(self, directory_page(type(data).__name__, manifest, sizes))

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
        return stored_json(os.path.join(self.uri, MANIFEST), self.artifact_store)
