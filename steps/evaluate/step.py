"""The step that compares base, tuned and production."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from datasets import DatasetDict
from zenml import get_step_context, step
from zenml.client import Client
from zenml.config import CachePolicy

from materializers.report import ReportMaterializer
from steps.artifacts import Adapter, QuantizedModel, TokenizerFiles
from steps.distributed.machine import Machine
from steps.distributed.params import DistributedParameters
from steps.errors import ModelError
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.report import EvaluationReport
from steps.fingerprint import fingerprint
from steps.resolve.locks import BenchmarkLock, ProductionLock
from steps.train.params import CheckpointParameters

if TYPE_CHECKING:
    from steps.evaluate.production import Production


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "torch", "transformers", "tokenizers", "peft", "bitsandbytes", "numpy", "scipy")


@step(
    output_materializers={
        "evaluation_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by, ignored_inputs=["production_lock"]),
)
def evaluate(
    examples: DatasetDict,
    quantized_model: QuantizedModel,
    adapter: Adapter,
    tokenizer: TokenizerFiles,
    benchmark_lock: BenchmarkLock,
    production_lock: ProductionLock,
    evaluation: EvaluationParameters,
) -> Annotated[EvaluationReport, "evaluation_report"]:
    """Measure loss and generated answers of the base, of the tuned model and of the one in production on the same test
    rows, and what decides nothing: loss on the validation rows, and the sets.

    Another version in production is no reason to measure again: the step promote sees that it was not measured. The
    folder that answers are kept in and the number of processes are in the step's ``extra``: they decide nothing.
    """
    from steps.evaluate.distributed.launch import processes_of
    from steps.evaluate.evaluate import evaluate_adapter
    from steps.evaluate.kept import kept_answers

    folders = (quantized_model.path, adapter.path, tokenizer.path)
    extra = get_step_context().step_run.config.extra
    checkpoints = CheckpointParameters.model_validate(extra["checkpoints"])
    processes = processes_of(DistributedParameters.model_validate(extra["plan"]["distributed"]), Machine.here().count)
    production = _production(production_lock, *folders) if production_lock.version else None
    asked = production.folders if production else None
    kept = kept_answers(checkpoints.folder, *folders, evaluation.max_new_tokens, asked)
    report = evaluate_adapter(
        examples["test"], *folders, evaluation, kept, benchmark_lock, examples["validation"], production, processes
    )
    report.when_stored(kept.forget_tuned)
    return report


def _production(lock: ProductionLock, model: Path, adapter: Path, tokenizer: Path) -> "Production":
    """The locked version; where an artifact of it equals this run's own, which is in place and checked, that is it."""
    from steps.evaluate.production import Production

    own = {name: found[0].content_hash for name, found in get_step_context().inputs.items()}
    if lock.adapter.content_hash and lock.adapter.content_hash == own["adapter"]:
        return Production(lock.version, None, same=True)
    stored = {"quantized_model": lock.quantized_model, "adapter": lock.adapter, "tokenizer": lock.tokenizer}
    here = {"quantized_model": model, "adapter": adapter, "tokenizer": tokenizer}
    gone = [name for name, one in stored.items() if not one.id]
    if gone:
        return Production(lock.version, None, why_not=f"the version has no {gone[0]} any more")
    try:
        paths = [
            here[name] if one.content_hash == own[name] else Client().get_artifact_version(one.id).load().path
            for name, one in stored.items()
        ]
    except (KeyError, FileNotFoundError, ModelError) as error:  # removed since, another store, a damaged file
        return Production(lock.version, None, why_not=str(error).splitlines()[0])
    return Production(lock.version, (paths[0], paths[1], paths[2]))
