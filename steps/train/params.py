"""Parameters of the training: what is learned, not how a device gets there."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from steps.parameters import Parameters

SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


BASE_CHANGING = ("pissa", "olora", "corda")
"""Initialisations of PEFT that take part of the base weights into the adapter."""


class LoraParameters(Parameters):
    """The adapter (LoRA, Hu et al. 2021, arXiv:2106.09685); the defaults are the notebook's."""

    r: int = Field(default=64, gt=0, description="rank")
    alpha: float = Field(default=16, gt=0, description="the update is scaled by alpha / r")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="probability with which an input of A is zeroed")
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | str = Field(
        default=SEVEN_PROJECTIONS,
        description="names of the linear layers that get an adapter, all-linear (all but the output layer), or a "
        "regular expression that full names match",
    )
    bias: Literal["none", "all", "lora_only"] = Field(
        default="none", description="biases trained too: of the whole model, or of the layers with an adapter"
    )
    modules_to_save: tuple[str, ...] = Field(
        default=(), description="names of unquantised modules trained as a whole and stored with the adapter"
    )
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732)")
    dora: bool = Field(default=False, description="train magnitudes apart (DoRA, Liu et al. 2024, arXiv:2402.09353)")
    initialization: Literal["default", "gaussian", "loftq", "eva"] = Field(
        default="default",
        description="how the adapter starts: A uniform or Gaussian and B zero; loftq: at the error of the "
        "quantisation (Li et al. 2023, arXiv:2310.08659); eva: along the inputs of each layer on the training data, "
        "ranks shared out by explained variance (Paischer et al. 2024, arXiv:2410.07170)",
    )
    loraplus_lr_ratio: float | None = Field(
        default=None, ge=1, description="learning rate of B over that of A (LoRA+, Hayou et al. 2024, arXiv:2402.12354)"
    )

    @field_validator("target_modules")
    @classmethod
    def _list_or_expression(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if not isinstance(value, str) or value == "all-linear":
            return value
        if value.isidentifier():
            raise ValueError(f"a single text is a regular expression over full names; for one name write [{value}]")
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        return value

    @field_validator("initialization", mode="before")
    @classmethod
    def _leaves_the_base_alone(cls, value: object) -> object:
        if value in BASE_CHANGING:
            raise ValueError(
                f"{value} changes the base weights, but the stored quantised model serves every adapter and stays as "
                "it is; use loftq or eva"
            )
        return value

    @model_validator(mode="after")
    def _loftq_without_dora(self) -> Self:
        if self.initialization == "loftq" and self.dora:
            raise ValueError(
                "initialization loftq does not go with dora: DoRA measures its magnitudes before LoftQ sets the "
                "weights; use one of them"
            )
        return self


UnitShare = Annotated[float, Field(ge=0, lt=1)]


class EarlyStoppingParameters(Parameters):
    """Stop when the validation loss no longer falls; the best adapter is kept, not the last."""

    patience: int = Field(default=3, gt=0, description="evaluations without improvement before stopping")
    min_improvement: float = Field(default=0.0, ge=0, description="nats that count as an improvement")


class ScheduleArguments(Parameters):
    """What some schedules need beyond the learning rate, under transformers' names; null is transformers' default."""

    num_cycles: float | None = Field(default=None, gt=0, description="waves of the cosine; restarts: their number")
    min_lr: float | None = Field(default=None, ge=0, description="lowest learning rate")
    max_lr: float | None = Field(default=None, gt=0, description="highest learning rate of greedy")
    min_lr_rate: float | None = Field(default=None, ge=0, lt=1, description="lowest share of the learning rate")
    min_lr_ratio: float | None = Field(default=None, ge=0, lt=1, description="min_lr_rate of warmup_stable_decay")
    warmup_lr_rate: float | None = Field(default=None, ge=0, lt=1, description="share at which the warm-up begins")
    lr_end: float | None = Field(default=None, ge=0, description="learning rate at the end of polynomial")
    power: float | None = Field(default=None, gt=0, description="exponent of polynomial")
    timescale: int | None = Field(default=None, gt=0, description="steps of inverse_sqrt")
    num_decay_steps: int | None = Field(default=None, gt=0, description="steps at the end in which the rate falls")
    decay_type: Literal["linear", "cosine", "1-sqrt"] | None = Field(default=None, description="shape of that fall")
    factor: float | None = Field(default=None, gt=0, lt=1, description="by which the rate is multiplied")
    patience: int | None = Field(default=None, ge=0, description="evaluations before the rate changes")


ARGUMENTS_OF: dict[str, tuple[str, ...]] = {
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "polynomial": ("lr_end", "power"),
    "inverse_sqrt": ("timescale",),
    "warmup_stable_decay": ("num_decay_steps", "decay_type", "min_lr_ratio"),
    "reduce_lr_on_plateau": ("factor", "patience", "min_lr"),
    "greedy": ("factor", "patience", "min_lr", "max_lr"),
}
"""The arguments that each schedule takes; the others take none."""

NEEDED_BY: dict[str, tuple[tuple[str, ...], ...]] = {
    "cosine_with_min_lr": (("min_lr", "min_lr_rate"),),
    "cosine_warmup_with_min_lr": (("min_lr", "min_lr_rate"),),
    "warmup_stable_decay": (("num_decay_steps",),),
    "greedy": (("min_lr",), ("max_lr",)),
}
"""One of each group must be given; transformers' own bounds for greedy, 0.001 and 1, are none for LoRA."""

FOLLOWS_VALIDATION = ("reduce_lr_on_plateau", "greedy")
"""Schedules that are moved by the validation loss."""

WITHOUT_WARM_UP = ("constant", *FOLLOWS_VALIDATION)

WITHOUT_BETAS = ("adafactor", "adagrad", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "sgd")
WITHOUT_EPSILON = (*WITHOUT_BETAS, "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit")


class DivergenceParameters(Parameters):
    """What is done about losses and gradients that are not finite, and when a loss counts as a spike."""

    max_skips: int = Field(
        default=3,
        ge=0,
        description="optimiser steps in a row that are skipped since their loss or gradient is not finite; one more "
        "stops the run. With float16, gradients alone are left to the loss scaling until its scale is below 1",
    )
    spike_window: int = Field(
        default=50, ge=5, description="optimiser steps before a step with whose losses its own is compared"
    )
    spike_deviations: float = Field(
        default=6.0,
        gt=0,
        description="a loss above the window's median by more than so many standard deviations is marked as a spike; "
        "they are estimated from the median absolute deviation of the differences between neighbours",
    )


class CheckpointParameters(Parameters):
    """Where and when a training writes down its whole state; decides how much a kill costs, never what is learned."""

    folder: str | None = Field(
        default=None,
        description="folder that outlives the process, on a mounted volume where machines come and go; by default "
        "qlora-pipeline/checkpoints in the user's cache folder",
    )
    every_minutes: float = Field(
        default=10.0, gt=0, description="minutes of training between two checkpoints; the last step writes one too"
    )
    every_steps: int | None = Field(
        default=None, gt=0, description="optimiser steps between two checkpoints, besides those by time"
    )
    keep: int = Field(
        default=2, gt=0, description="newest checkpoints that stay; two, so that one may be found damaged"
    )


class TrainingParameters(Parameters):
    """Optimisation; the defaults are the notebook's except where a description says otherwise."""

    lora: LoraParameters = LoraParameters()
    epochs: float = Field(default=3, gt=0, description="passes over the training rows")
    max_steps: int | None = Field(default=None, gt=0, description="optimiser steps, instead of epochs")
    batch_size: int = Field(
        default=5, gt=0, description="blocks; an optimiser step learns from batch_size x gradient_accumulation of them"
    )
    gradient_accumulation: int = Field(
        default=2,
        gt=0,
        description="the other factor; plan.micro_batch says how a step is cut up",
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="after the warm-up; the highest of its schedule")
    schedule: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "polynomial",
        "inverse_sqrt",
        "warmup_stable_decay",
        "reduce_lr_on_plateau",
        "greedy",
    ] = Field(
        default="constant_with_warmup",
        description="learning rate after the warm-up, by transformers' name; its 'constant' ignores warmup_ratio",
    )
    schedule_arguments: ScheduleArguments = ScheduleArguments()
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="share of the optimiser steps")
    weight_decay: float = Field(default=0.001, ge=0, description="of the adapter's matrices, decoupled in AdamW")
    max_grad_norm: float = Field(default=0.3, gt=0, description="longer gradients are scaled to this L2 norm")
    optimizer: Literal[
        "adamw_torch_fused",
        "adamw_torch",
        "adamw_bnb_8bit",
        "adamw_8bit",
        "paged_adamw_32bit",
        "paged_adamw_8bit",
        "ademamix",
        "ademamix_8bit",
        "paged_ademamix_32bit",
        "paged_ademamix_8bit",
        "lion_32bit",
        "lion_8bit",
        "paged_lion_32bit",
        "paged_lion_8bit",
        "adafactor",
        "adagrad",
        "rmsprop",
        "rmsprop_bnb",
        "rmsprop_bnb_8bit",
        "rmsprop_bnb_32bit",
        "sgd",
    ] = Field(default="adamw_torch_fused", description="by transformers' name: those that need no further package")
    betas: tuple[UnitShare, UnitShare] = Field(
        default=(0.9, 0.999), description="decay of the running means of gradient and square (Adam, AdEMAMix, Lion)"
    )
    epsilon: float = Field(default=1e-8, gt=0, description="added to the root of the square (Adam, AdEMAMix)")
    precision: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="auto takes bfloat16 where the hardware has it, float16 on older GPUs"
    )
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = Field(
        default="auto", description="auto takes flash_attention_2 where it is installed and supported"
    )
    evaluate_every: int = Field(
        default=1, gt=0, description="optimiser steps between two measurements of the validation loss"
    )
    evaluations_per_epoch: int | None = Field(
        default=None, gt=0, description="measurements of the validation loss an epoch, instead of evaluate_every"
    )
    early_stopping: EarlyStoppingParameters | None = Field(
        default=EarlyStoppingParameters(),
        description="stop when the validation loss no longer falls; the best adapter is kept, not the last; null "
        "trains to the end",
    )
    divergence: DivergenceParameters = DivergenceParameters()
    seed: int = Field(default=42, description="of the adapter's first weights, the data's order and the dropout")

    @model_validator(mode="after")
    def _warm_up_happens(self) -> Self:
        if self.schedule in WITHOUT_WARM_UP and self.warmup_ratio > 0:
            other = "use constant_with_warmup or " if self.schedule == "constant" else ""
            raise ValueError(f"schedule {self.schedule} has no warm-up; {other}set warmup_ratio to 0")
        return self

    @model_validator(mode="after")
    def _schedule_takes_its_arguments(self) -> Self:
        valid = ARGUMENTS_OF.get(self.schedule, ())
        given = self.schedule_arguments.model_dump(exclude_none=True)
        for name in given:
            if name not in valid:
                known = f"it takes {', '.join(valid)}" if valid else "it takes none"
                raise ValueError(f"schedule_arguments.{name} means nothing to schedule {self.schedule}; {known}")
        for group in NEEDED_BY.get(self.schedule, ()):
            if sum(name in given for name in group) != 1:
                one = " or ".join(f"schedule_arguments.{name}" for name in group)
                raise ValueError(f"schedule {self.schedule} needs {one}{', one of them' if len(group) > 1 else ''}")
        for name in ("min_lr", "lr_end"):
            if given.get(name, 0.0) >= self.learning_rate:
                raise ValueError(f"schedule_arguments.{name} {given[name]:g} is not below learning_rate")
        return self

    @model_validator(mode="after")
    def _optimizer_has_its_terms(self) -> Self:
        for name, without in (("betas", WITHOUT_BETAS), ("epsilon", WITHOUT_EPSILON)):
            changed = getattr(self, name) != type(self).model_fields[name].default
            if changed and self.optimizer in without:
                raise ValueError(f"{name} means nothing to optimizer {self.optimizer}; remove it")
        return self
