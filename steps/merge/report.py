"""What the merge changed, and how close the merged model is to base + adapter and to what was trained."""

from pydantic import BaseModel

from steps.merge.params import Target
from steps.report import Report


class Differences(BaseModel):
    """How far one model's logits at the completions' tokens are from another's; losses in nats per token."""

    positions: int
    max_logit_difference: float
    mean_logit_difference: float
    kl_divergence: float  # KL(expected || found), mean over the tokens, in nats
    top1_agreement: float
    expected_loss: float
    loss: float


class FromTrained(Differences):
    """How far a merged model is from the quantised base with the adapter: what was trained and evaluated."""

    target: Target
    written: bool  # this one is the artifact; the other was made in memory only
    answers_that_differ: int


class AnswersSideBySide(BaseModel):
    """Greedy answers to one prompt, of which one at least is not like the trained model's."""

    instruction: str
    trained: str
    merged: dict[Target, str]


class MergeReport(Report):
    """Compared on real prompts: the merged model reloaded from disk, the same unmerged, and what was trained.

    The first fields compare the merged model with the same base and the adapter beside it: that is the arithmetic of
    the merge alone.
    """

    base_model: str
    target: Target
    quantization: str  # of the base that was trained on: nf4, fp4, int8 or none
    changed_weights: int  # by the adapter
    unchanged_weights: int
    dequantized_weights: int  # that were the quantised model's before the adapter changed any
    rows: int
    positions: int
    max_logit_difference: float
    mean_logit_difference: float
    top1_agreement: float
    adapter_loss: float
    merged_loss: float
    max_logit_difference_bound: float
    max_loss_difference_bound: float
    from_trained: list[FromTrained]
    kl_divergence_bound: float
    loss_rise_bound: float
    max_new_tokens: int
    samples: list[AnswersSideBySide]
    bytes: int
    content: str = ""  # SHA-256 over the files' hashes, all but the card's: another model is decided upon anew
    shards: int = 1
    resumed_shards: int = 0  # that a killed merge had finished
    device: str
    seconds: float

    @property
    def written(self) -> FromTrained:
        """The comparison of the model that is the artifact."""
        return next(one for one in self.from_trained if one.written)

    @property
    def holds(self) -> bool:
        """Whether the merged model is base + adapter; false where a figure is no number."""
        return (
            self.max_logit_difference <= self.max_logit_difference_bound
            and abs(self.merged_loss - self.adapter_loss) <= self.max_loss_difference_bound
        )

    @property
    def near_trained(self) -> bool:
        """Whether the merged model is near what was evaluated; false where a figure is no number."""
        return (
            self.written.kl_divergence <= self.kl_divergence_bound
            and self.written.loss - self.written.expected_loss <= self.loss_rise_bound
        )

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Differences and size."""
        return {
            "target": self.target,
            "max_logit_difference": round(self.max_logit_difference, 5),
            "loss_difference": round(self.merged_loss - self.adapter_loss, 6),
            "top1_agreement": round(self.top1_agreement, 5),
            "kl_from_trained": round(self.written.kl_divergence, 6),
            "loss_from_trained": round(self.written.loss - self.written.expected_loss, 6),
            "answers_that_differ": self.written.answers_that_differ,
            "merged_bytes": self.bytes,
        }

    def decisive_json(self) -> str:
        """Everything but the time that it took, the device's description and what was there already."""
        return self.model_dump_json(exclude={"seconds", "device", "resumed_shards"})
