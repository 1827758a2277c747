"""The step that trains the adapter."""

from typing import Annotated

from datasets import DatasetDict
from zenml import get_step_context, step
from zenml.client import Client
from zenml.config import CachePolicy

from materializers.directory import DirectoryMaterializer
from materializers.local import output_directory
from materializers.report import ReportMaterializer
from steps.artifacts import Adapter, QuantizedModel, TokenizerFiles
from steps.fingerprint import fingerprint
from steps.train.checkpoint import LIBRARIES, checkpoints_of
from steps.train.params import CheckpointParameters, TrainingParameters
from steps.train.plan.params import PlanParameters
from steps.train.report import TrainingReport
from steps.train.tracking import OnMetrics, curves, nowhere


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, *LIBRARIES)


@step(
    output_materializers={
        "adapter": DirectoryMaterializer,
        "training_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def train(
    blocks: DatasetDict,
    quantized_model: QuantizedModel,
    tokenizer: TokenizerFiles,
    training: TrainingParameters,
) -> tuple[Annotated[Adapter, "adapter"], Annotated[TrainingReport, "training_report"]]:
    """Train LoRA weights on the packed blocks; the best adapter by validation loss is the artifact.

    The parameters of checkpoints and plan are in the step's ``extra``, since neither where a checkpoint is written nor
    how the device gets there is a reason to train again, and ZenML counts every argument.
    """
    from steps.train.train import train_adapter

    config = get_step_context().step_run.config
    checkpoints = CheckpointParameters.model_validate(config.extra["checkpoints"])
    plan = PlanParameters.model_validate(config.extra["plan"])
    store = checkpoints_of(blocks, quantized_model.path, tokenizer.path, training, checkpoints)
    with output_directory() as folder:
        report = train_adapter(
            blocks,
            quantized_model.path,
            tokenizer.path,
            training,
            folder,
            store,
            _curves(config.experiment_tracker),
            plan,
        )
        return Adapter(folder, when_stored=store.remove), report


def _curves(name: bool | str | None) -> OnMetrics:
    """Into the experiment tracker that the step names; ZenML has opened its run."""
    if not isinstance(name, str):
        return nowhere
    tracker = Client().active_stack.experiment_trackers[name]
    return curves(tracker, tracker.flavor)
