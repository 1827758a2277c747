"""TRL's trainer, taught to write and read our checkpoints and to remember the blocks of the step under way."""

import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers.trainer import OPTIMIZER_NAME, TRAINER_STATE_NAME
from trl.trainer.sft_trainer import SFTTrainer

from steps.tokenizer import IGNORED
from steps.train.adapter import trainable
from steps.train.callbacks import BestAdapter, Recorder
from steps.train.checkpoint import Checkpoints
from steps.train.divergence import DivergenceGuard

if TYPE_CHECKING:
    from transformers.trainer_utils import EvalLoopOutput

WEIGHTS = "weights.safetensors"
BYTES_PER_WEIGHT = 16
"""At most, in a checkpoint: the weight, two moments of the optimiser and the best weight, 4 bytes each."""


class ResumableTrainer(SFTTrainer):
    """Replaces what transformers does for a checkpoint's model, which is not exact for an adapter.

    PEFT would load bfloat16 weights as float32. Optimiser, schedule, loss scaling, random numbers and the position in
    the data are transformers' own.
    """

    def __init__(self, recorder: Recorder, best: BestAdapter, guard: DivergenceGuard, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.recorder, self.best, self.guard = recorder, best, guard
        self.course, self.meter = recorder.course, recorder.meter
        self.adapted = cast("PeftModel", self.model)
        self.checkpoints: Checkpoints
        self.evaluated: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Mean loss and trained tokens of each batch of the evaluation under way."""

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
        self.meter.mark("backward")
        self.meter.count(inputs)
        self.guard.batches.append((inputs["input_ids"], loss))
        if self.accelerator.sync_gradients:
            gradients = [one.grad for one in trainable(self.adapted).values() if one.grad is not None]
            self.guard.norm = torch.nn.utils.get_total_norm(gradients)  # before clipping, which hides an overflow
        return torch.nan_to_num(loss, nan=0.0, posinf=0.0, neginf=0.0)

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """Forward pass and loss; the meter is told of training's, an evaluation's are part of the evaluation."""
        if model.training:
            self.meter.mark("rest")
        loss = super().compute_loss(model, inputs, *arguments, **named)  # type: ignore[no-untyped-call]  # TRL's
        if model.training:
            self.meter.mark("forward")
        return loss

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The micro-batches of an optimiser step, with the time that they were waited for."""
        self.meter.mark("rest")
        batches = super().get_batch_samples(*arguments)
        self.meter.mark("data")
        return batches

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Measure the validation loss, with the time that it takes."""
        self.meter.mark("rest")
        metrics = super().evaluate(*arguments, **named)
        self.meter.mark("evaluation")
        return metrics

    def prediction_step(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """One evaluation batch; how many tokens its loss is the mean of is kept."""
        result = super().prediction_step(model, inputs, *arguments, **named)
        self.evaluated.append((result[0], (inputs["labels"][..., 1:] != IGNORED).sum().to(result[0].device)))
        return result

    def evaluation_loop(self, *arguments: Any, **named: Any) -> "EvalLoopOutput":
        """The mean over all trained tokens; transformers' mean over batches would depend on the batch's size."""
        self.evaluated.clear()
        output = super().evaluation_loop(*arguments, **named)
        losses, tokens = (torch.stack(values).double() for values in zip(*self.evaluated, strict=True))
        cast("dict[str, float]", output.metrics)["eval_loss"] = float((losses * tokens).sum() / tokens.sum())
        return output

    def _resume_course(self, checkpoint: Path) -> None:
        """Take over figures, best weights and patience."""
        step = int(checkpoint.name.removeprefix("step-"))
        self.meter.mark("start")
        self.meter.update(wait=True)
        self.course.resume(checkpoint, step)
        self.recorder.replay()
        self.best.load(checkpoint)
        print(f"  train: resumed from step {step}", flush=True)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.checkpoints.require_space(self._checkpoint_bytes())
        self.meter.mark("rest")
        self.meter.update(wait=True)
        self.course.finished = self.course.stopped_early or self.state.global_step >= self.state.max_steps
        with self.checkpoints.writing(self.state.global_step) as folder:
            self.write_state(folder)
        self.meter.mark("checkpoints")

    def write_state(self, folder: Path) -> None:
        """Write all that a checkpoint holds."""
        save_file({name: weight.detach() for name, weight in trainable(self.adapted).items()}, folder / WEIGHTS)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        self.best.save(folder)
        self.course.save(folder)

    def read_state(self, folder: Path) -> None:
        """Read what a resumed training reads, in the same way."""
        self._load_from_checkpoint(str(folder))
        self._load_optimizer_and_scheduler(str(folder))
        self._load_scaler(str(folder))
        self._load_rng_state(str(folder))
        self.best.load(folder)

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each part of the state that decides how the training goes on."""
        optimizer, schedule = cast("Any", self.optimizer), cast("Any", self.lr_scheduler)
        parts = {
            "weights": trainable(self.adapted),
            "optimiser": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "random numbers": [
                random.getstate(),
                np.random.get_state(),
                torch.get_rng_state(),
                *torch.cuda.get_rng_state_all(),
            ],
            "best weights": self.best.weights,
        }
        return {name: _fingerprint(state) for name, state in parts.items()}

    def forget_batches(self) -> None:
        """Drop what was noted of batches that are none of the training's."""
        self.guard.batches.clear()
        self._total_train_tokens = 0
        for values in self._metrics.values():
            values.clear()

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


def _fingerprint(state: object) -> str:
    """SHA-256 of tensors, arrays, numbers and texts, however nested."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, dict):
            for name in value:
                digest.update(repr(name).encode())
                add(value[name])
        elif isinstance(value, list | tuple):
            for one in value:
                add(one)
        elif isinstance(value, torch.Tensor):
            digest.update(str(value.dtype).encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())

    add(state)
    return digest.hexdigest()
