"""What happened in training."""

from pydantic import BaseModel

from steps.device import Choice
from steps.report import Report


class TrainedStep(BaseModel):
    """One optimiser step: loss in nats per trained token, norm of the gradient before clipping."""

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


class Cost(BaseModel):
    """What the training took, over all processes that took part, without work that a kill undid.

    Utilisations are shares of the cards' peak during training alone; see ``steps/train/utilization.py``.
    """

    seconds: float
    seconds_in: dict[str, float]
    tokens_per_second: float  # of training alone: without start, evaluations and checkpoints
    tokens_per_second_overall: float  # of all of it
    peak_memory_bytes: int  # of the process that took most
    memory_of: str  # "GPU" or "process"
    peak_flops: float | None  # of all cards; None where they or the precision are not in the table
    model_flop_utilization: float | None
    computed_flop_utilization: float | None  # with what gradient checkpointing computes again
    energy_joules: float | None  # of the whole cards; None where one doesn't tell


class TrainingReport(Report):
    """The course of the training and what it took.

    ``steps`` lacks the skipped ones; ``resumed_from`` are the steps whose checkpoints the work went on from;
    ``preflight_seconds`` are the last call's, 0 if it trained nothing.
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
    tokens: int  # that the model has seen, those of a repeated block again
    epochs: float
    trainable_parameters: int
    total_parameters: int
    flop_per_token: float
    initial_adapter_sha256: str
    device: str
    choices: list[Choice]
    preflight_seconds: float
    cost: Cost
    parameters: dict[str, object]

    @property
    def trainable_share(self) -> float:
        """Trained parameters over all, the adapter's among them."""
        return self.trainable_parameters / self.total_parameters

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Losses, steps, tokens, speed, memory and energy."""
        cost = self.cost
        values: dict[str, str | int | float | bool] = {
            "final_train_loss": round(self.steps[-1].loss, 4),
            "steps": len(self.steps),
            "best_step": self.best_step,
            "skipped_steps": len(self.skipped),
            "loss_spikes": len(self.spikes),
            "epochs": round(self.epochs, 3),
            "tokens": self.tokens,
            "trainable_share": round(self.trainable_share, 6),
            "seconds": round(cost.seconds, 1),
            "tokens_per_second": round(cost.tokens_per_second, 1),
            "tokens_per_second_overall": round(cost.tokens_per_second_overall, 1),
            "peak_memory_gib": round(cost.peak_memory_bytes / 2**30, 2),
        }
        if self.validation:
            values["best_validation_loss"] = round(min(point.loss for point in self.validation), 4)
        if cost.model_flop_utilization is not None:
            values["model_flop_utilization"] = round(cost.model_flop_utilization, 4)
        if cost.energy_joules is not None:
            values["energy_watt_hours"] = round(cost.energy_joules / 3600, 2)
        return values

    def decisive_json(self) -> str:
        """What was learned: neither how nor at what cost, which differ where the adapter is the same."""
        how = {"resumed_from", "device", "choices", "preflight_seconds", "cost"}
        return self.model_dump_json(exclude=how)
