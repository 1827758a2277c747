"""How each type of artifact is stored: Arrow, safetensors and JSON, never a pickle."""

from materializers.dataset import DatasetDictMaterializer, DatasetMaterializer
from materializers.directory import DirectoryMaterializer
from materializers.report import ReportMaterializer

MATERIALIZERS = (ReportMaterializer, DatasetMaterializer, DatasetDictMaterializer, DirectoryMaterializer)
"""For ``@step(output_materializers=...)``: ZenML takes the one that fits each output."""
