"""The whole system, as its table of contents."""

from pipelines.stack import active_tracker
from pipelines.strict import strict_pipeline
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.sets import set_sources, task_folders
from steps.evaluate.step import evaluate
from steps.export.params import ExportParameters
from steps.export.step import export
from steps.format.params import PromptParameters
from steps.format.step import format as format_step
from steps.ingest.step import ingest
from steps.merge.params import MergeParameters
from steps.merge.step import merge
from steps.promote.params import PromotionParameters
from steps.promote.step import promote
from steps.quantize.params import QuantizationParameters
from steps.quantize.step import quantize
from steps.resolve.params import BaseModelParameters, DataParameters
from steps.resolve.step import resolve
from steps.split.params import SplitParameters
from steps.split.step import split
from steps.train.params import CheckpointParameters, TrainingParameters
from steps.train.plan.params import PlanParameters
from steps.train.step import train
from steps.validate.params import ValidationParameters
from steps.validate.step import validate


@strict_pipeline
def finetune(
    data: DataParameters,
    base_model: BaseModelParameters,
    validation: ValidationParameters = ValidationParameters(),
    splits: SplitParameters = SplitParameters(),
    prompt: PromptParameters = PromptParameters(),
    quantization: QuantizationParameters = QuantizationParameters(),
    training: TrainingParameters = TrainingParameters(),
    checkpoints: CheckpointParameters = CheckpointParameters(),
    plan: PlanParameters = PlanParameters(),
    evaluation: EvaluationParameters = EvaluationParameters(),
    merging: MergeParameters = MergeParameters(),
    promotion: PromotionParameters = PromotionParameters(),
    exports: ExportParameters = ExportParameters(),
) -> None:
    """Instruction -> code rows and a base language model in; a verified, promoted, servable model out."""
    data_lock, model_lock, tokenizer_lock, evaluation_lock, benchmark_lock, previous_rows, production_lock, _ = resolve(
        data,
        base_model,
        splits.contamination.against,
        set_sources(evaluation),
        evaluation.reference_text,
        task_folders(evaluation),
    )
    raw_rows, _, ingest_report = ingest(data, data_lock, previous_rows)
    rows, _, validation_report = validate(raw_rows, tokenizer_lock, prompt, validation)
    split_rows, _, _, _ = split(rows, splits, evaluation_lock, ingest_report, validation_report)
    blocks, examples, _, tokenizer, format_report = format_step(split_rows, tokenizer_lock, prompt)
    quantized_model, _ = quantize(model_lock, quantization)
    extra = {"checkpoints": checkpoints.model_dump(), "plan": plan.model_dump()}  # none of it is part of a cache key
    train_there = train.with_options(extra=extra, experiment_tracker=active_tracker())
    adapter, training_report = train_there(blocks, quantized_model, tokenizer, training)
    evaluate_there = evaluate.with_options(extra=extra)
    locks = (benchmark_lock, production_lock)
    evaluation_report = evaluate_there(examples, quantized_model, adapter, tokenizer, *locks, evaluation)
    known = (data_lock, ingest_report, format_report, training_report, evaluation_report)  # for its card
    merged_model, merge_report = merge(model_lock, quantized_model, adapter, tokenizer, examples, *known, merging)
    promotion_decision, _ = promote(evaluation_report, merge_report, promotion)
    if exports.any:
        export(merged_model, adapter, examples, promotion_decision, exports)
