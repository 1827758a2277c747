"""Parameters of the training: what is learned, not how a device gets there."""

from typing import Literal, Self

from pydantic import Field, model_validator

from steps.parameters import Parameters

SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoraParameters(Parameters):
    """The adapter (LoRA, Hu et al. 2021, arXiv:2106.09685); the defaults are the notebook's."""

    r: int = Field(default=64, gt=0, description="rank")
    alpha: float = Field(default=16, gt=0, description="the update is scaled by alpha / r")
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(
        default=SEVEN_PROJECTIONS, min_length=1, description="names of the linear layers that get an adapter"
    )


class EarlyStoppingParameters(Parameters):
    """Stop when the validation loss no longer falls; the best adapter is kept, not the last."""

    patience: int = Field(default=3, gt=0, description="evaluations without improvement before stopping")
    min_improvement: float = Field(default=0.0, ge=0, description="nats that count as an improvement")


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
    epochs: float = Field(default=3, gt=0)
    max_steps: int | None = Field(default=None, gt=0, description="optimiser steps, instead of epochs")
    batch_size: int = Field(default=5, gt=0, description="blocks of a micro-batch")
    gradient_accumulation: int = Field(default=2, gt=0, description="micro-batches of an optimiser step")
    gradient_checkpointing: bool = Field(default=True, description="recompute activations to save memory")
    learning_rate: float = Field(default=2e-4, gt=0)
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        default="constant_with_warmup",
        description="learning rate after the warm-up; transformers' 'constant' ignores warmup_ratio",
    )
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(default=0.001, ge=0)
    max_grad_norm: float = Field(default=0.3, gt=0)
    optimizer: Literal["adamw_torch_fused", "adamw_torch", "adamw_bnb_8bit", "paged_adamw_8bit"] = Field(
        default="adamw_torch_fused"
    )
    precision: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="auto takes bfloat16 where the hardware has it, float16 on older GPUs"
    )
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = Field(
        default="auto", description="auto takes flash_attention_2 where it is installed and supported"
    )
    evaluate_every: int = Field(
        default=1, gt=0, description="optimiser steps between two measurements of the validation loss"
    )
    early_stopping: EarlyStoppingParameters | None = EarlyStoppingParameters()
    divergence: DivergenceParameters = DivergenceParameters()
    seed: int = 42

    @model_validator(mode="after")
    def _warm_up_happens(self) -> Self:
        if self.schedule == "constant" and self.warmup_ratio > 0:
            raise ValueError("schedule constant has no warm-up; use constant_with_warmup or set warmup_ratio to 0")
        return self
