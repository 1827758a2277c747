"""The step that always runs: it looks up what exactly the rest of the run uses."""

from typing import Annotated

from zenml import step

from materializers.report import ReportMaterializer
from steps.resolve.locks import DataLock, Environment, ModelLock, TokenizerLock
from steps.resolve.params import BaseModelParameters, DataParameters


@step(
    output_materializers={
        "data_lock": ReportMaterializer,
        "model_lock": ReportMaterializer,
        "tokenizer_lock": ReportMaterializer,
        "evaluation_lock": ReportMaterializer,
        "environment": ReportMaterializer,
    },
    enable_cache=False,
)
def resolve(
    data: DataParameters, base_model: BaseModelParameters, evaluation_sets: tuple[str, ...]
) -> tuple[
    Annotated[DataLock, "data_lock"],
    Annotated[ModelLock, "model_lock"],
    Annotated[TokenizerLock, "tokenizer_lock"],
    Annotated[DataLock, "evaluation_lock"],
    Annotated[Environment, "environment"],
]:
    """Pin data, models and evaluation sets to one exact state, and record code, versions and hardware."""
    from steps.resolve.base_model import lock_model, lock_tokenizer
    from steps.resolve.data import lock_data
    from steps.resolve.environment import describe_environment
    from steps.resolve.evaluation_sets import lock_evaluation_sets

    model_lock = lock_model(base_model)
    tokenizer_lock, evaluation_lock = lock_tokenizer(model_lock), lock_evaluation_sets(evaluation_sets)
    return lock_data(data), model_lock, tokenizer_lock, evaluation_lock, describe_environment()
