"""Parameters of the promotion gate."""

from typing import Literal

from pydantic import Field

from steps.parameters import Parameters


class PromotionParameters(Parameters):
    """What a tuned model must show to be promoted; a tie does not promote."""

    stage: Literal["staging", "production"] = Field(default="staging", description="stage of the promoted version")
    min_loss_gain: float = Field(
        default=0.0,
        ge=0,
        description="nats per token by which the completion loss must fall, with the evaluation's confidence",
    )
    max_rate_drop: float = Field(
        default=0.0, ge=0, le=1, description="largest allowed fall of the share of answers that are only code"
    )
    max_forgetting: float | None = Field(
        default=0.1,
        ge=0,
        description="nats per token by which the loss on evaluation.reference_text may rise, with the evaluation's "
        "confidence; null, or no reference text, is no condition",
    )
