"""What one room's parameters mean for another's: combinations that each room alone would accept."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from pipelines.document import Problem
from steps.evaluate.params import EvaluationParameters
from steps.parameters import Parameters
from steps.promote.params import PASS_AT, PromotionParameters
from steps.quantize.params import QuantizationParameters
from steps.split.params import SplitParameters
from steps.train.params import FOLLOWS_VALIDATION, TrainingParameters
from steps.train.plan.params import PlanParameters

INTERVALS = ("evaluate_every", "evaluations_per_epoch")
"""Two ways to say how often the validation loss is measured."""


def _validation_rows_exist(parameters: Mapping[str, Parameters]) -> Iterator[Problem]:
    splits, training = parameters.get("splits"), parameters.get("training")
    if not (isinstance(splits, SplitParameters) and isinstance(training, TrainingParameters)):
        return
    if splits.validation == 0 and training.early_stopping is not None:
        yield Problem(
            ("parameters", "splits", "validation"),
            "is 0, but training.early_stopping needs a validation set; "
            "give validation a share or set training.early_stopping to null",
        )
    for name in INTERVALS:
        if splits.validation == 0 and name in training.model_fields_set:
            yield Problem(
                ("parameters", "splits", "validation"),
                f"is 0, but training.{name} needs a validation set; give validation a share or remove training.{name}",
            )
    if splits.validation == 0 and training.schedule in FOLLOWS_VALIDATION:
        yield Problem(
            ("parameters", "splits", "validation"),
            f"is 0, but training.schedule {training.schedule} follows the validation loss; "
            "give validation a share or take another schedule",
        )


def _one_interval(parameters: Mapping[str, Parameters]) -> Iterator[Problem]:
    training = parameters.get("training")
    if isinstance(training, TrainingParameters) and set(INTERVALS) <= training.model_fields_set:
        yield Problem(
            ("parameters", "training", "evaluations_per_epoch"),
            "says how often the validation loss is measured, and so does evaluate_every; remove one of them",
        )


def _adapter_fits_quantization(parameters: Mapping[str, Parameters]) -> Iterator[Problem]:
    quantization, training = parameters.get("quantization"), parameters.get("training")
    if not (isinstance(quantization, QuantizationParameters) and isinstance(training, TrainingParameters)):
        return
    if training.lora.initialization == "loftq" and quantization.kind not in ("nf4", "fp4"):
        yield Problem(
            ("parameters", "training", "lora", "initialization"),
            f"loftq makes up for the error of 4-bit weights, but quantization.kind is {quantization.kind}; "
            "use nf4 or fp4, or another initialization",
        )
    if training.lora.dora and quantization.kind == "int8":
        yield Problem(
            ("parameters", "training", "lora", "dora"),
            "does not go with quantization.kind int8, whose layers lose their scales when PEFT measures magnitudes; "
            "use another kind, or lora without dora",
        )


def _test_rows_exist(parameters: Mapping[str, Parameters]) -> Iterator[Problem]:
    splits = parameters.get("splits")
    if isinstance(splits, SplitParameters) and splits.test == 0:
        yield Problem(
            ("parameters", "splits", "test"),
            "is 0, but evaluate compares base and tuned on test rows; give it a share",
        )


def _micro_batch_divides(parameters: Mapping[str, Parameters]) -> Iterator[Problem]:
    plan, training = parameters.get("plan"), parameters.get("training")
    if not (isinstance(plan, PlanParameters) and isinstance(training, TrainingParameters)):
        return
    blocks = training.batch_size * training.gradient_accumulation
    problem = plan.distributed.misfit(blocks)
    if problem:
        yield Problem(("parameters", "plan", "distributed", "processes"), problem)
        return
    named = plan.distributed.processes
    problem = plan.misfit(blocks, 1 if named == "auto" else named)
    if problem:
        yield Problem(("parameters", "plan", "micro_batch"), problem)


def _reference_text_exists(parameters: Mapping[str, Parameters]) -> Iterator[Problem]:
    evaluation, promotion = parameters.get("evaluation"), parameters.get("promotion")
    if not (isinstance(evaluation, EvaluationParameters) and isinstance(promotion, PromotionParameters)):
        return
    asked = "max_forgetting" in promotion.model_fields_set and promotion.max_forgetting is not None
    if asked and evaluation.reference_text is None:
        yield Problem(
            ("parameters", "promotion", "max_forgetting"),
            "bounds the loss on evaluation.reference_text, which is null; give a text or remove max_forgetting",
        )


def _figures_are_measured(parameters: Mapping[str, Parameters]) -> Iterator[Problem]:
    evaluation, promotion = parameters.get("evaluation"), parameters.get("promotion")
    if not (isinstance(evaluation, EvaluationParameters) and isinstance(promotion, PromotionParameters)):
        return
    drawn = evaluation.sampling.pass_at if evaluation.sampling else ()
    for name, key in promotion.figures.items():
        place = ("parameters", "promotion", *key)
        pass_at = PASS_AT.fullmatch(name)
        if pass_at and int(pass_at[1]) not in drawn:
            yield Problem(place, f"{name} is not measured; add {pass_at[1]} to evaluation.sampling.pass_at")
        if name in ("runs", "passes its tests") and evaluation.sandbox.execute == "never":
            yield Problem(place, f"{name!r} is not measured, since evaluation.sandbox.execute is never; change either")


RULES: Sequence[Callable[[Mapping[str, Parameters]], Iterator[Problem]]] = (
    _validation_rows_exist,
    _one_interval,
    _adapter_fits_quantization,
    _test_rows_exist,
    _micro_batch_divides,
    _reference_text_exists,
    _figures_are_measured,
)
"""Each looks only at parameters that are valid by themselves."""
