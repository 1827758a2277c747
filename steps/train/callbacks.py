"""What watches the trainer: the report's figures, the progress line, the best adapter and early stopping."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steps.progress import Progress
from steps.train.adapter import trainable
from steps.train.params import EarlyStoppingParameters
from steps.train.report import Measurement, TrainedStep


class Recorder(TrainerCallback):
    """Collects loss, learning rate and gradient norm of every step, and draws the progress line."""

    def __init__(self) -> None:
        self.steps: list[TrainedStep] = []
        self.validation: list[Measurement] = []
        self.progress = Progress("train", 1)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the line."""
        self.progress = Progress("train", state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Take the figures that the trainer logged."""
        values = logs or {}
        if "eval_loss" in values:
            self.validation.append(Measurement(step=state.global_step, loss=values["eval_loss"]))
        if "loss" in values:
            self.steps.append(
                TrainedStep(
                    step=state.global_step,
                    loss=values["loss"],
                    learning_rate=values["learning_rate"],
                    grad_norm=float(values.get("grad_norm", 0.0)),
                )
            )
            self.progress.advance(state.global_step, self._note())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the line."""
        self.progress.__exit__()

    def _note(self) -> str:
        validation = f"  validation {self.validation[-1].loss:.3f}" if self.validation else ""
        return f"loss {self.steps[-1].loss:.3f}{validation}"


class BestAdapter(TrainerCallback):
    """Keeps a copy of the adapter with the lowest validation loss, and stops when it no longer falls."""

    def __init__(self, early_stopping: EarlyStoppingParameters | None) -> None:
        self.early_stopping = early_stopping
        self.loss = float("inf")
        self.step = 0
        self.weights: dict[str, torch.Tensor] = {}
        self.without_improvement = 0
        self.stopped_early = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Compare the validation loss with the best one so far."""
        loss: float = kwargs["metrics"]["eval_loss"]
        model: torch.nn.Module = kwargs["model"]
        least = self.early_stopping.min_improvement if self.early_stopping else 0.0
        improved = loss < self.loss - least
        if loss < self.loss:
            self.loss, self.step = loss, state.global_step
            self.weights = {name: weight.detach().cpu().clone() for name, weight in trainable(model).items()}
        self.without_improvement = 0 if improved else self.without_improvement + 1
        if self.early_stopping and self.without_improvement >= self.early_stopping.patience:
            self.stopped_early = True
            control.should_training_stop = True

    def restore(self, model: torch.nn.Module) -> None:
        """Put the best weights back into the model."""
        for name, parameter in trainable(model).items():
            parameter.data.copy_(self.weights[name])
