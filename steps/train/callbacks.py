"""What watches the trainer: the report's figures, the progress line, the best adapter and early stopping."""

import math
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steps.progress import Progress
from steps.train.adapter import trainable
from steps.train.course import Course
from steps.train.distributed.shard import part
from steps.train.figures import StepFigures
from steps.train.meter import Meter
from steps.train.params import EarlyStoppingParameters
from steps.train.report import Measurement, TrainedStep
from steps.train.tracking import OnMetrics

BEST = "best.safetensors"
"""In a checkpoint."""


class Recorder(TrainerCallback):
    """Collects loss, learning rate and gradient norm of every step, hands them on, and draws the progress line."""

    def __init__(self, on_metrics: OnMetrics, *, on_gpu: bool) -> None:
        self.course = Course()
        self.meter = Meter(self.course, on_gpu)
        self.on_metrics = on_metrics
        self.progress = Progress("train", 1)
        self.before = (0, 0.0)
        """Tokens and seconds of training up to the former step."""
        self.speed = 0.0
        """Tokens a second since then."""

    def replay(self) -> None:
        """Hand on what was before this process, so that an experiment tracker's curves are whole."""
        for step in self.course.steps:
            self.on_metrics(step.step, _figures(step))
        for measured in self.course.validation:
            self.on_metrics(measured.step, {"validation_loss": measured.loss})

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock and the line with the first epoch: the pre-flight, before it, is no training."""
        if self.meter.began:
            return
        self.meter.begin()
        self.meter.update(wait=True)
        course = self.course
        course.planned_steps = state.max_steps
        self.before = (course.tokens, course.training_seconds)
        self.progress = Progress("train", state.max_steps)
        self.progress.start -= course.seconds - course.seconds_in["start"]  # so that a resumed run's time left is right

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What came since the backward pass was clipping, the check for infinite gradients and the optimiser."""
        self.meter.mark("optimizer")
        self.course.epochs = state.epoch or 0.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Take the validation loss."""
        values = logs or {}
        if "eval_loss" in values:
            self.course.validation.append(Measurement(step=state.global_step, loss=values["eval_loss"]))
            self.on_metrics(state.global_step, {"validation_loss": values["eval_loss"]})

    def take(self, figures: StepFigures) -> None:
        """Take the figures of a step, and show them."""
        self.meter.update()
        step = TrainedStep(
            step=figures.step, loss=sum(figures.losses), learning_rate=figures.learning_rate, grad_norm=figures.norm
        )
        course = self.course
        course.steps.append(step)
        tokens, seconds = course.tokens - self.before[0], course.training_seconds - self.before[1]
        if seconds > 0:  # no time has passed between figures that arrived together
            self.before = (course.tokens, course.training_seconds)
            self.speed = tokens / seconds
        costs = {"tokens_per_second": self.speed, "memory_gib": course.peak_memory_bytes / 2**30}
        self.on_metrics(step.step, _figures(step) | costs)
        self.progress.advance(step.step, self._note())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the line."""
        self.meter.mark("rest")
        self.progress.__exit__()

    def _note(self) -> str:
        course = self.course
        validation = f"  validation {course.validation[-1].loss:.3f}" if course.validation else ""
        speed = f"{course.tokens / course.training_seconds:,.0f} tok/s"
        return f"loss {course.steps[-1].loss:.3f}{validation}  {speed}  {course.peak_memory_bytes / 2**30:.1f} GiB"


def _figures(step: TrainedStep) -> dict[str, float]:
    return {"loss": step.loss, "learning_rate": step.learning_rate, "grad_norm": step.grad_norm}


class BestAdapter(TrainerCallback):
    """Keeps a copy of the adapter with the lowest validation loss, and stops when it no longer falls."""

    def __init__(self, early_stopping: EarlyStoppingParameters | None, course: Course) -> None:
        self.early_stopping = early_stopping
        self.course = course
        self.weights: dict[str, torch.Tensor] = {}  # of those that are shared out this process's part

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
        course = self.course
        lowest = math.inf if course.best_loss is None else course.best_loss
        least = self.early_stopping.min_improvement if self.early_stopping else 0.0
        course.without_improvement = 0 if loss < lowest - least else course.without_improvement + 1
        if loss < lowest:
            course.best_loss, course.best_step = loss, state.global_step
            self.weights = {name: part(weight.detach()).cpu().clone() for name, weight in trainable(model).items()}
        patient = self.early_stopping is None or course.without_improvement < self.early_stopping.patience
        if not patient and state.global_step < state.max_steps:
            course.stopped_early = True
            control.should_training_stop = True

    def restore(self, model: torch.nn.Module) -> None:
        """Put the best weights back into the model; without a validation set there are none, and the last ones stay."""
        if self.weights:
            for name, parameter in trainable(model).items():
                part(parameter.data).copy_(self.weights[name])


class EvaluateAtEnd(TrainerCallback):
    """Measures after the last step too, whatever the interval: the last adapter may be the best."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for an evaluation once all steps are done."""
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True
