"""Losses and gradients that are not finite are skipped or stop the run; losses that stand out are named."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steps.errors import TrainingError
from steps.train.adapter import trainable
from steps.train.figures import StepFigures
from steps.train.params import DivergenceParameters
from steps.train.report import SkippedStep, TrainedStep

if TYPE_CHECKING:
    from steps.train.callbacks import Recorder

LEAST_WINDOW = 5
"""Losses that a median needs before anything is called a spike."""

NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


class DivergenceGuard(TrainerCallback):
    """Skips an optimiser step whose loss or gradient is not finite; too many in a row stop the run.

    torch's fused optimisers leave a step out themselves when they are told so in the GPU's memory. There the figures
    are looked at once they have arrived, a step later, and the GPU never waits for this process. Elsewhere they are
    awaited before the step.
    """

    def __init__(
        self, divergence: DivergenceParameters, recorder: "Recorder", blocks: Dataset, *, sharded: bool
    ) -> None:
        self.divergence = divergence
        self.sharded = sharded  # fused optimisers take no sign from outside for weights in parts
        self.recorder, self.course = recorder, recorder.course
        self.blocks = blocks
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Tokens and loss of each micro-batch of the optimiser step under way."""
        self.norm = torch.tensor(0.0)
        """Of the gradient that they sum up to, not clipped."""
        self.weights_are_whole = False
        """A step has begun, and its optimiser has not: what is written now is what a resumed training needs."""
        self.under_way: deque[StepFigures] = deque()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A new optimiser step has no micro-batch yet."""
        self.batches.clear()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have the step left out if its loss or gradient is not finite."""
        self.weights_are_whole = False
        optimizer = kwargs["optimizer"]  # accelerate's, around torch's
        rate = optimizer.param_groups[0]["lr"]
        figures, values = StepFigures.fetch(
            state.global_step + 1, rate, self.batches, self.norm, scale_is_sought=_scale_is_sought(optimizer)
        )
        fused = optimizer.scaler is None and optimizer.param_groups[0].get("fused")
        if figures.arrived is not None and fused and not self.sharded:
            optimizer.optimizer.found_inf = (~torch.isfinite(values).all()).float()
        else:
            figures.are_there(wait=True)
            if not figures.is_finite and not (figures.loss_is_finite and figures.scale_is_sought):
                for parameter in trainable(kwargs["model"]).values():
                    parameter.grad = None  # without them the optimiser changes nothing
        self.under_way.append(figures)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at what has arrived."""
        self.look(wait=False)

    def look(self, *, wait: bool) -> None:
        """Record the steps whose figures have arrived, with ``wait`` all.

        Raises:
            TrainingError: too many in a row are not finite.
        """
        while self.under_way and self.under_way[0].are_there(wait=wait):
            figures = self.under_way.popleft()
            if figures.is_finite:
                self.recorder.take(figures)
            elif not figures.loss_is_finite:
                bad = [
                    each for each, loss in zip(figures.tokens, figures.losses, strict=True) if not math.isfinite(loss)
                ]
                self._skip(figures.step, "loss", bad)
            elif not figures.scale_is_sought:
                self._skip(figures.step, "gradient norm", figures.tokens)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A validation loss that is not finite comes from the weights, so the next step would not be better.

        Raises:
            TrainingError: it is not finite.
        """
        if not math.isfinite(kwargs["metrics"]["eval_loss"]):
            raise TrainingError(
                f"the training diverged: the validation loss after step {state.global_step} is not finite; lower "
                "parameters.training.learning_rate, or look for broken rows in the validation split"
            )

    def _skip(self, step: int, what: str, batches: list[torch.Tensor]) -> None:
        numbers = sorted({number for tokens in batches for number in _blocks_in(tokens, self.blocks)})
        rows = [row for number in numbers for row in self.blocks[number]["row_ids"]]
        reason = f"the {what} is not finite"
        self.course.skipped.append(SkippedStep(step=step, reason=reason, blocks=numbers, row_ids=rows))
        streak = self._streak(step)
        where = f"block {', '.join(map(str, numbers))} of the training split" + (
            f", rows {', '.join(rows)}" * bool(rows)
        )
        print(f"  train: step {step} skipped, {reason} ({where})", flush=True)
        if streak > self.divergence.max_skips:
            raise TrainingError(
                f"the training diverged: {reason} at step {step} ({where}), {streak} in a row where "
                f"parameters.training.divergence.max_skips is {self.divergence.max_skips}; look at these rows, or "
                "lower parameters.training.learning_rate"
            )

    def _streak(self, step: int) -> int:
        """How many skipped steps end with ``step``."""
        skipped = {one.step for one in self.course.skipped}
        streak = 0
        while step - streak in skipped:
            streak += 1
        return streak


def _scale_is_sought(optimizer: Any) -> bool:
    """Whether float16's loss scaling is still to be lowered, which an infinite gradient does, and skips the step."""
    scaler = optimizer.scaler  # accelerate's; none without float16
    return scaler is not None and scaler.get_scale() >= 1


def _blocks_in(tokens: torch.Tensor, blocks: Dataset) -> Iterator[int]:
    """Numbers of the blocks of a micro-batch, found by their tokens: the collator drops every other column.

    Blocks lie in a batch whole and one after the other, padded or not.
    """
    batch = tokens.cpu().numpy().astype(np.int32).tobytes()
    for number, ids in enumerate(blocks.with_format("numpy", columns=["input_ids"])["input_ids"]):
        if batch.find(ids.astype(np.int32).tobytes()) % 4 == 0:
            yield number


def spikes(steps: Sequence[TrainedStep], parameters: DivergenceParameters) -> list[int]:
    """The steps whose loss stands out above the losses of the steps before it.

    Above their median by more than ``spike_deviations`` standard deviations of a loss, which are estimated from the
    differences between neighbours, so that a loss that falls over the window does not hide a spike; by the median
    absolute deviation (Leys et al. 2013, doi:10.1016/j.jesp.2013.03.013), so that a spike does not hide the next.
    """
    found = []
    for position, step in enumerate(steps):
        window = [one.loss for one in steps[max(0, position - parameters.spike_window) : position]]
        if len(window) < LEAST_WINDOW:
            continue
        differences = [after - before for before, after in pairwise(window)]
        middle = median(differences)
        deviation = NORMAL * median(abs(one - middle) for one in differences) / math.sqrt(2)
        if step.loss > median(window) + parameters.spike_deviations * deviation:
            found.append(step.step)
    return found
