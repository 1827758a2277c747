"""When the validation loss is measured."""

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steps.train.params import TrainingParameters


def steps_between(training: TrainingParameters, blocks: int) -> int:
    """Optimiser steps between two measurements of the validation loss.

    Args:
        training: ``evaluations_per_epoch`` goes before ``evaluate_every``.
        blocks: blocks of the training split.
    """
    if training.evaluations_per_epoch is None:
        return training.evaluate_every
    steps = math.ceil(math.ceil(blocks / training.batch_size) / training.gradient_accumulation)
    return max(1, steps // training.evaluations_per_epoch)


class EvaluateAtEnd(TrainerCallback):
    """Measures after the last step too, whatever the interval: the last adapter may be the best."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for an evaluation once all steps are done."""
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True
