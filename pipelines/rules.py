"""What one room's parameters mean for another's: combinations that each room alone would accept."""

import inspect
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


def _validation_rows_exist(splits: SplitParameters, training: TrainingParameters) -> Iterator[Problem]:
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


def _one_interval(training: TrainingParameters) -> Iterator[Problem]:
    if set(INTERVALS) <= training.model_fields_set:
        yield Problem(
            ("parameters", "training", "evaluations_per_epoch"),
            "says how often the validation loss is measured, and so does evaluate_every; remove one of them",
        )


def _adapter_fits_quantization(quantization: QuantizationParameters, training: TrainingParameters) -> Iterator[Problem]:
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


def _test_rows_exist(splits: SplitParameters) -> Iterator[Problem]:
    if splits.test == 0:
        yield Problem(
            ("parameters", "splits", "test"),
            "is 0, but evaluate compares base and tuned on test rows; give it a share",
        )


def _micro_batch_divides(plan: PlanParameters, training: TrainingParameters) -> Iterator[Problem]:
    blocks = training.batch_size * training.gradient_accumulation
    problem = plan.distributed.misfit(blocks)
    if problem:
        yield Problem(("parameters", "plan", "distributed", "processes"), problem)
        return
    named = plan.distributed.processes
    problem = plan.misfit(blocks, 1 if named == "auto" else named)
    if problem:
        yield Problem(("parameters", "plan", "micro_batch"), problem)


def _reference_text_exists(evaluation: EvaluationParameters, promotion: PromotionParameters) -> Iterator[Problem]:
    asked = "max_forgetting" in promotion.model_fields_set and promotion.max_forgetting is not None
    if asked and evaluation.reference_text is None:
        yield Problem(
            ("parameters", "promotion", "max_forgetting"),
            "bounds the loss on evaluation.reference_text, which is null; give a text or remove max_forgetting",
        )


def _figures_are_measured(evaluation: EvaluationParameters, promotion: PromotionParameters) -> Iterator[Problem]:
    drawn = evaluation.sampling.pass_at if evaluation.sampling else ()
    for name, key in promotion.figures.items():
        place = ("parameters", "promotion", *key)
        pass_at = PASS_AT.fullmatch(name)
        if pass_at and int(pass_at[1]) not in drawn:
            yield Problem(place, f"{name} is not measured; add {pass_at[1]} to evaluation.sampling.pass_at")
        if name in ("runs", "passes its tests") and evaluation.sandbox.execute == "never":
            yield Problem(place, f"{name!r} is not measured, since evaluation.sandbox.execute is never; change either")


RULES: Sequence[Callable[..., Iterator[Problem]]] = (
    _validation_rows_exist,
    _one_interval,
    _adapter_fits_quantization,
    _test_rows_exist,
    _micro_batch_divides,
    _reference_text_exists,
    _figures_are_measured,
)
"""Each takes the parameters that it looks at, by their names in a configuration."""


def combined(valid: Mapping[str, Parameters]) -> Iterator[Problem]:
    """What every rule says whose parameters are valid by themselves."""
    for rule in RULES:
        names = inspect.signature(rule).parameters
        if names.keys() <= valid.keys():
            yield from rule(**{name: valid[name] for name in names})
