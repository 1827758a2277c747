"""What the merge changed, and how close the merged model is to base + adapter."""

from steps.report import Report


class MergeReport(Report):
    """Compared on real prompts: base + adapter in memory against the merged model reloaded from disk."""

    base_model: str
    changed_weights: int
    unchanged_weights: int
    rows: int
    positions: int
    max_logit_difference: float
    mean_logit_difference: float
    top1_agreement: float
    adapter_loss: float
    merged_loss: float
    max_logit_difference_bound: float
    max_loss_difference_bound: float
    bytes: int
    shards: int = 1
    resumed_shards: int = 0  # that a killed merge had finished
    device: str
    seconds: float

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Differences and size."""
        return {
            "max_logit_difference": round(self.max_logit_difference, 5),
            "loss_difference": round(self.merged_loss - self.adapter_loss, 6),
            "top1_agreement": round(self.top1_agreement, 5),
            "merged_bytes": self.bytes,
        }

    def decisive_json(self) -> str:
        """Everything but the time that it took, the device's description and what was there already."""
        return self.model_dump_json(exclude={"seconds", "device", "resumed_shards"})
