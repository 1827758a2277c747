"""What happened in training."""

from pydantic import BaseModel

from steps.report import Report


class TrainedStep(BaseModel):
    """One optimiser step: loss in nats per trained token."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float


class Measurement(BaseModel):
    """Validation loss after an optimiser step, in nats per trained token."""

    step: int
    loss: float


class SkippedStep(BaseModel):
    """An optimiser step that was not taken because its loss or gradient was not finite."""

    step: int
    reason: str
    blocks: list[int]  # numbers in the training split, from 0
    row_ids: list[str]


class TrainingReport(Report):
    """The course of the training and what it took.

    ``steps`` lacks the skipped ones; ``resumed_from`` are the steps whose checkpoints the work went on from, and
    ``seconds`` leave out work that a kill undid. ``preflight_seconds`` are the last call's, 0 if it trained nothing.
    """

    steps: list[TrainedStep]
    validation: list[Measurement]
    skipped: list[SkippedStep]
    spikes: list[int]
    resumed_from: list[int]
    best_step: int
    stopped: str
    planned_steps: int
    blocks: int
    tokens_per_step: int
    trainable_parameters: int
    total_parameters: int
    initial_adapter_sha256: str
    device: str
    preflight_seconds: float
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    parameters: dict[str, object]

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Losses, steps, speed and memory."""
        values: dict[str, str | int | float | bool] = {
            "final_train_loss": round(self.steps[-1].loss, 4),
            "steps": len(self.steps),
            "best_step": self.best_step,
            "skipped_steps": len(self.skipped),
            "loss_spikes": len(self.spikes),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "peak_memory_gib": round(self.peak_memory_bytes / 2**30, 2),
        }
        if self.validation:
            values["best_validation_loss"] = round(min(point.loss for point in self.validation), 4)
        return values
