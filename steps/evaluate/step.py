"""The step that compares base and tuned."""

from typing import Annotated

from datasets import DatasetDict
from zenml import get_step_context, step
from zenml.config import CachePolicy

from materializers.report import ReportMaterializer
from steps.artifacts import Adapter, QuantizedModel, TokenizerFiles
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.report import EvaluationReport
from steps.fingerprint import fingerprint
from steps.resolve.locks import BenchmarkLock
from steps.train.params import CheckpointParameters


def decided_by() -> str:
    """Hash of the code and the libraries that decide this step's result."""
    return fingerprint(__file__, "torch", "transformers", "peft", "bitsandbytes")


@step(
    output_materializers={
        "evaluation_report": ReportMaterializer,
    },
    cache_policy=CachePolicy(include_step_code=False, cache_func=decided_by),
)
def evaluate(
    examples: DatasetDict,
    quantized_model: QuantizedModel,
    adapter: Adapter,
    tokenizer: TokenizerFiles,
    benchmark_lock: BenchmarkLock,
    evaluation: EvaluationParameters,
) -> Annotated[EvaluationReport, "evaluation_report"]:
    """Measure loss and generated answers of the base and of the tuned model on the same test rows, and what decides
    nothing: loss on the validation rows, and the sets.

    The folder that answers are kept in is in the step's ``extra``: another one is no reason to measure again.
    """
    from steps.evaluate.evaluate import evaluate_adapter
    from steps.evaluate.kept import kept_answers

    folders = (quantized_model.path, adapter.path, tokenizer.path)
    checkpoints = CheckpointParameters.model_validate(get_step_context().step_run.config.extra["checkpoints"])
    kept = kept_answers(checkpoints.folder, *folders, evaluation.max_new_tokens)
    report = evaluate_adapter(examples["test"], *folders, evaluation, kept, benchmark_lock, examples["validation"])
    report.when_stored(kept.forget_tuned)
    return report
