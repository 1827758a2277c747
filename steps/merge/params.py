"""Parameters of the merge and of its proof."""

from pydantic import Field

from steps.parameters import Parameters


class MergeParameters(Parameters):
    """Bounds on the difference between the merged model, reloaded from disk, and base + adapter in memory."""

    max_prompts: int = Field(default=8, gt=0, description="test rows on which logits are compared")
    max_logit_difference: float = Field(
        default=6.0,
        gt=0,
        description="largest absolute difference of any logit; rounding to bfloat16 stays below it",
    )
    max_loss_difference: float = Field(
        default=0.05, gt=0, description="largest difference of the mean completion loss, in nats per token"
    )
