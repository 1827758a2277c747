"""TRL's trainer, taught to write and read our checkpoints and to remember the blocks of the step under way."""

from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers.trainer import OPTIMIZER_NAME, TRAINER_STATE_NAME
from trl.trainer.sft_trainer import SFTTrainer

from steps.train.adapter import trainable
from steps.train.callbacks import BestAdapter
from steps.train.checkpoint import Checkpoints
from steps.train.course import Course
from steps.train.divergence import DivergenceGuard

WEIGHTS = "weights.safetensors"
BYTES_PER_WEIGHT = 16
"""At most, in a checkpoint: the weight, two moments of the optimiser and the best weight, 4 bytes each."""


class ResumableTrainer(SFTTrainer):
    """Replaces what transformers does for a checkpoint's model, which is not exact for an adapter.

    PEFT would load bfloat16 weights as float32. Optimiser, schedule, loss scaling, random numbers and the position in
    the data are transformers' own.
    """

    def __init__(self, course: Course, best: BestAdapter, guard: DivergenceGuard, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.course, self.best, self.guard = course, best, guard
        self.adapted = cast("PeftModel", self.model)
        self.checkpoints: Checkpoints

    def run(self, checkpoints: Checkpoints) -> None:
        """Train from the newest sound checkpoint, or from the start where there is none."""
        self.checkpoints = checkpoints
        checkpoints.require_space(self._checkpoint_bytes())
        newest = checkpoints.newest()
        if newest is None:
            self.train()
            return
        self._resume_course(newest)
        if self.course.finished:
            load_weights(self.adapted, newest)
        else:
            self.train(resume_from_checkpoint=str(newest))

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any) -> torch.Tensor:
        """One micro-batch; what the guard must know is kept, and a loss that is not finite goes no further.

        transformers adds the losses up between two logs, and one NaN would stay in that sum.
        """
        loss: torch.Tensor = super().training_step(model, inputs, *arguments)  # type: ignore[no-untyped-call]  # TRL's
        self.guard.batches.append((inputs["input_ids"], loss))
        if self.accelerator.sync_gradients:
            gradients = [one.grad for one in trainable(self.adapted).values() if one.grad is not None]
            self.guard.norm = torch.nn.utils.get_total_norm(gradients)  # before clipping, which hides an overflow
        return torch.nan_to_num(loss, nan=0.0, posinf=0.0, neginf=0.0)

    def _resume_course(self, checkpoint: Path) -> None:
        """Take over figures, best weights and patience; the callbacks share the course, so it is filled in place."""
        before = Course.load(checkpoint)
        step = int(checkpoint.name.removeprefix("step-"))
        for name in Course.model_fields:
            setattr(self.course, name, getattr(before, name))
        self.course.resumed_from = [*before.resumed_from, step]
        self.best.load(checkpoint)
        print(f"  train: resumed from step {step}", flush=True)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.checkpoints.require_space(self._checkpoint_bytes())
        self.course.finished = self.course.stopped_early or self.state.global_step >= self.state.max_steps
        with self.checkpoints.writing(self.state.global_step) as folder:
            save_file({name: weight.detach() for name, weight in trainable(self.adapted).items()}, folder / WEIGHTS)
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self._save_rng_state(str(folder))
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            self.best.save(folder)
            self.course.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_weights(self.adapted, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Undo what torch does when an optimiser's state is loaded: it rounds the state to the weights' type.

        Adafactor keeps its state in float32 for bfloat16 weights.
        """
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        saved = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True, mmap=True)
        optimizer = cast("torch.optim.Optimizer", self.optimizer)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for number, exact in saved["state"].items():
            state = optimizer.state[weights[number]]
            for name, value in exact.items():
                if torch.is_tensor(value) and value.dtype != state[name].dtype:
                    state[name] = value.to(state[name].device, copy=True)

    def _checkpoint_bytes(self) -> int:
        return BYTES_PER_WEIGHT * sum(weight.numel() for weight in trainable(self.adapted).values())


def load_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """Put the checkpoint's adapter weights into the model, in their own type."""
    weights = load_file(checkpoint / WEIGHTS)
    for name, parameter in trainable(model).items():
        parameter.data.copy_(weights[name])
