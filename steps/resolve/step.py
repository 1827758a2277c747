"""The step that always runs: it looks up what exactly the rest of the run uses."""

from typing import Annotated

from datasets import Dataset
from zenml import get_step_context, step
from zenml.client import Client
from zenml.models import ModelVersionResponse

from materializers.dataset import DatasetMaterializer
from materializers.registry import PRODUCTION, holder
from materializers.report import ReportMaterializer
from steps.resolve.locks import (
    BenchmarkLock,
    DataLock,
    Environment,
    ModelLock,
    ProductionLock,
    StoredArtifact,
    TokenizerLock,
)
from steps.resolve.params import BaseModelParameters, DataParameters
from steps.rows import PREVIOUS_FEATURES, table_of


@step(
    output_materializers={
        "data_lock": ReportMaterializer,
        "model_lock": ReportMaterializer,
        "tokenizer_lock": ReportMaterializer,
        "evaluation_lock": ReportMaterializer,
        "benchmark_lock": ReportMaterializer,
        "previous_rows": DatasetMaterializer,
        "production_lock": ReportMaterializer,
        "environment": ReportMaterializer,
    },
    enable_cache=False,
)
def resolve(
    data: DataParameters,
    base_model: BaseModelParameters,
    evaluation_sets: tuple[str, ...],
    benchmarks: tuple[str, ...],
    reference_text: str | None,
    tasks: dict[str, str | None],
) -> tuple[
    Annotated[DataLock, "data_lock"],
    Annotated[ModelLock, "model_lock"],
    Annotated[TokenizerLock, "tokenizer_lock"],
    Annotated[DataLock, "evaluation_lock"],
    Annotated[BenchmarkLock, "benchmark_lock"],
    Annotated[Dataset, "previous_rows"],
    Annotated[ProductionLock, "production_lock"],
    Annotated[Environment, "environment"],
]:
    """Pin data, models and evaluation sets to one exact state, and record code, versions and hardware."""
    from steps.resolve.base_model import lock_model, lock_tokenizer
    from steps.resolve.benchmarks import lock_benchmarks
    from steps.resolve.data import lock_data
    from steps.resolve.environment import describe_environment
    from steps.resolve.evaluation_sets import lock_evaluation_sets

    model_lock = lock_model(base_model)
    tokenizer_lock, evaluation_lock = lock_tokenizer(model_lock), lock_evaluation_sets(evaluation_sets)
    benchmark_lock = lock_benchmarks(benchmarks, reference_text, tasks)
    locks = (lock_data(data), model_lock, tokenizer_lock, evaluation_lock, benchmark_lock)
    return *locks, previous_rows(), production_lock(), describe_environment()


def previous_rows() -> Dataset:
    """The rows that the ZenML model's last run read, to report what is new; none in its first run."""
    model = get_step_context().model.name
    found = Client().list_artifact_versions(artifact="raw_rows", model=model, sort_by="desc:created", size=1).items
    if not found:
        return table_of([], PREVIOUS_FEATURES)
    rows: Dataset = found[0].load()
    return rows.select_columns(list(PREVIOUS_FEATURES))


def production_lock() -> ProductionLock:
    """The version of the ZenML model that is in production now, and where its adapter and what that needs lie."""
    name = get_step_context().model.name
    version = holder(name, PRODUCTION)
    if version is None:
        return ProductionLock()
    return ProductionLock(
        model=name,
        version=version.number,
        id=str(version.id),
        adapter=_stored(version, "adapter"),
        quantized_model=_stored(version, "quantized_model"),
        tokenizer=_stored(version, "tokenizer"),
    )


def _stored(version: ModelVersionResponse, name: str) -> StoredArtifact:
    artifact = version.get_artifact(name)
    if artifact is None:
        return StoredArtifact()
    return StoredArtifact(id=str(artifact.id), content_hash=artifact.content_hash or "")
