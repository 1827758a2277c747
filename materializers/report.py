"""Materializer of every report and record: JSON for programs, one HTML page for people."""

import hashlib
import json
import os
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.local import saving
from materializers.page import save_page
from steps.report import Report

VALUES = "report.json"


class ReportMaterializer(BaseMaterializer):
    """Saves any :class:`steps.report.Report`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Report,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def save(self, data: Report) -> None:
        """Write the values as JSON."""
        values = data.model_dump(mode="json")
        path = os.path.join(self.uri, VALUES)
        with saving(self.uri, self.artifact_store), self.artifact_store.open(path, "w") as stream:
            json.dump(values, stream, indent=1)  # unlike pydantic's own JSON, it keeps an infinite bound
        data.stored()

    def load(self, data_type: type[Any]) -> Any:
        """The report, validated against its model."""
        with self.artifact_store.open(os.path.join(self.uri, VALUES), "r") as stream:
            return data_type.model_validate_json(stream.read())

    def save_visualizations(self, data: Report) -> dict[str, VisualizationType]:
        """Draw the report's page."""
        return save_page(self, data.html())

    def extract_metadata(self, data: Report) -> dict[str, Any]:
        """The numbers that the report names as comparable across runs."""
        return dict(data.metadata())

    def compute_content_hash(self, data: Report) -> str:
        """Hash of the values that later steps may depend on."""
        return hashlib.sha256(data.decisive_json().encode()).hexdigest()
