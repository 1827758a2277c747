"""Parameters of the merge and of its proof."""

from typing import Literal

from pydantic import Field

from steps.parameters import Parameters

Target = Literal["full_precision", "dequantized"]

MAX_KL_DIVERGENCE: dict[Target, float] = {"full_precision": 0.35, "dequantized": 0.05}
"""Nats per token: above the error of 4 bits, or of rounding alone, and below a lost adapter (docs/decisions.md)."""

MAX_LOSS_RISE: dict[Target, float] = {"full_precision": 0.1, "dequantized": 0.05}
"""Nats per token; merging at full precision usually lowers the loss."""


def _by_target(bounds: dict[Target, float]) -> str:
    return ", ".join(f"{bound:g} for {target}" for target, bound in bounds.items())


class MergeParameters(Parameters):
    """What the adapter is merged into, and bounds on how far the result may be from what was trained.

    Training and evaluation used the quantised base with the adapter. Merged at full precision the adapter stands on
    weights that it did not see; merged into the dequantised ones the model is what was trained, up to rounding.
    """

    target: Target = Field(
        default="full_precision",
        description="full_precision: the base's own weights; dequantized: those that the quantised layers multiplied "
        "by in training, in the base's stored type; the same where quantization.kind is none",
    )
    max_prompts: int = Field(default=8, gt=0, description="test rows on which the models are compared")
    max_new_tokens: int = Field(default=96, gt=0, description="tokens after which a compared greedy answer is cut")
    max_logit_difference: float = Field(
        default=6.0,
        gt=0,
        description="largest absolute difference of any logit between the merged model, reloaded, and the same base "
        "with the adapter beside it; rounding to bfloat16 stays below it",
    )
    max_loss_difference: float = Field(
        default=0.05,
        gt=0,
        description="largest difference of the mean completion loss between the same two, in nats per token",
    )
    max_kl_divergence: float | None = Field(
        default=None,
        gt=0,
        description="largest mean KL(trained || merged), in nats per token, where trained is the quantised base with "
        f"the adapter; null: {_by_target(MAX_KL_DIVERGENCE)}",
    )
    max_loss_rise: float | None = Field(
        default=None,
        gt=0,
        description="nats per token by which the merged model's completion loss may be above the trained one's; "
        f"null: {_by_target(MAX_LOSS_RISE)}",
    )
