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
        "environment": ReportMaterializer,
    },
    enable_cache=False,
)
def resolve(
    data: DataParameters, base_model: BaseModelParameters
) -> tuple[
    Annotated[DataLock, "data_lock"],
    Annotated[ModelLock, "model_lock"],
    Annotated[TokenizerLock, "tokenizer_lock"],
    Annotated[Environment, "environment"],
]:
    """Pin data, base model and tokenizer to one exact state, and record code, versions and hardware."""
    from steps.resolve.base_model import lock_model, lock_tokenizer
    from steps.resolve.data import lock_data
    from steps.resolve.environment import describe_environment

    model_lock = lock_model(base_model)
    return lock_data(data), model_lock, lock_tokenizer(model_lock), describe_environment()
