"""TRL's trainer, taught to write and read our checkpoints and to remember the blocks of the step under way."""

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from peft import PeftModel
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from trl.trainer.sft_trainer import SFTTrainer

from steps.errors import TrainingError
from steps.tokenizer import IGNORED
from steps.train.adapter import digest, trainable
from steps.train.callbacks import BEST, BestAdapter, Recorder
from steps.train.checkpoint import Checkpoints, step_of
from steps.train.distributed.parts import Parts
from steps.train.distributed.shard import part, whole
from steps.train.distributed.training import SharedTraining
from steps.train.divergence import DivergenceGuard
from steps.train.graph.training import CapturedTraining
from steps.train.meter import tokens_in
from steps.train.state import fingerprint_of
from steps.train.stepdown import is_out_of_memory

if TYPE_CHECKING:
    from transformers.trainer_utils import EvalLoopOutput

WEIGHTS = "weights.safetensors"
BYTES_PER_WEIGHT = 16
"""At most, in a checkpoint: the weight, two moments of the optimiser and the best weight, 4 bytes each."""


class ResumableTrainer(SharedTraining, CapturedTraining, SFTTrainer):
    """Replaces what transformers does for a checkpoint's model, which is not exact for an adapter.

    PEFT would load bfloat16 weights as float32. Optimiser, schedule, loss scaling, random numbers and the position in
    the data are transformers' own.
    """

    def __init__(
        self, recorder: Recorder, best: BestAdapter, guard: DivergenceGuard, parts: Parts, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.parts, self.ranks, self.counted = parts, parts.ranks, []
        self.recorder, self.best, self.guard = recorder, best, guard
        self.course, self.meter = recorder.course, recorder.meter
        self.adapted = cast("PeftModel", self.model)
        self.checkpoints: Checkpoints
        self.kernels = "TRL's own"  # what was put in their place, and what was not
        self.random: tuple[torch.Tensor, list[torch.Tensor]]
        """At the beginning of the optimiser step under way."""
        self.initial = ""  # digest of the adapter's first weights
        self.parameters = (0, 0)  # trained ones, all
        self.forward_is_marked = False  # of the micro-batch under way; a captured one has its passes in one
        self.evaluated: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Mean loss and trained tokens of each batch of the evaluation under way."""

    def start(self) -> None:
        """Give all processes the first one's adapter, and note it, while it and the model are whole."""
        for weight in trainable(self.adapted).values():
            self.ranks.follow(weight.data)
        self.initial = digest(self.adapted)
        self.parameters = self.adapted.get_nb_trainable_parameters()

    def run(self, checkpoints: Checkpoints) -> None:
        """Train from the newest sound checkpoint, or from the start where there is none."""
        self.checkpoints = checkpoints
        self.part_random_numbers()
        checkpoints.require_space(self._checkpoint_bytes())
        newest = checkpoints.newest()
        if len(set(self.ranks.collect(newest and newest.name))) > 1:
            raise TrainingError(
                f"{checkpoints.folder}: not every process sees the same checkpoints; name a folder that all machines "
                "see under parameters.checkpoints.folder"
            )
        if newest is not None:
            self._resume_course(newest)
        if self.course.finished:
            self._load_from_checkpoint(str(newest))
            return
        try:
            self.train(resume_from_checkpoint=None if newest is None else str(newest))
        except Exception as error:
            if self.ranks.alone and is_out_of_memory(error) and self.guard.weights_are_whole:
                self._leave()
            raise

    def _leave(self) -> None:
        """Write the state before the step that memory was short for, so that a smaller plan goes on from there."""
        newest = self.checkpoints.newest()
        if self.state.global_step > (0 if newest is None else step_of(newest)):
            self.adapted.zero_grad()
            torch.set_rng_state(self.random[0])
            torch.cuda.set_rng_state_all(self.random[1])
            self._save_checkpoint(self.adapted, None)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any) -> torch.Tensor:
        """One micro-batch; what the guard must know is kept."""
        loss = super().training_step(model, inputs, *arguments)
        if self.ranks.alone:
            self.meter.add(tokens_in(inputs))
        else:
            self.count_batch(inputs)
        self.meter.mark("backward" if self.forward_is_marked else "captured")
        self.forward_is_marked = False
        self.guard.batches.append((inputs["input_ids"], loss))
        return loss

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        if not self.ranks.alone:
            self.guard.batches, tokens = self.exchange(self.guard.batches)
            self.meter.add(tokens)
        norm: torch.Tensor = whole(super()._clip_grad_norm(model))  # type: ignore[no-untyped-call]  # transformers' own
        self.guard.norm = norm  # before clipping, which hides an overflow
        return norm

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """Forward pass and loss; the meter is told of training's, an evaluation's are part of the evaluation."""
        if model.training:
            self.meter.mark("rest")
        loss = super().compute_loss(model, inputs, *arguments, **named)  # type: ignore[no-untyped-call]  # TRL's
        if model.training:
            self.meter.mark("forward")
            self.forward_is_marked = True
        return loss

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The micro-batches of an optimiser step, with the time that they were waited for."""
        self.meter.mark("rest")
        batches, items = super().get_batch_samples(*arguments)
        items = items if self.ranks.alone else self.ranks.add(cast("torch.Tensor", items))
        self.random = torch.get_rng_state(), torch.cuda.get_rng_state_all()
        self.guard.weights_are_whole = True
        self.meter.mark("data")
        return batches, items

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Measure the validation loss, with the time that it takes."""
        self.meter.mark("rest")
        self.guard.look(wait=True)
        try:
            metrics = super().evaluate(*arguments, **named)
        except Exception as error:
            if self.captured is None or not is_out_of_memory(error):
                raise
            self.captured.release()  # it is captured again when training goes on
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
        total, count = self.ranks.add(torch.stack([(losses * tokens).sum(), tokens.sum()]))
        cast("dict[str, float]", output.metrics)["eval_loss"] = float(total / count)
        return output

    def _resume_course(self, checkpoint: Path) -> None:
        """Take over figures, best weights and patience."""
        step = step_of(checkpoint)
        self.meter.mark("start")
        self.meter.update(wait=True)
        self.course.resume(checkpoint, step)
        if not self.ranks.first and self.course.energy_joules is not None:
            self.course.energy_joules = 0.0  # the first has the sum
        self.recorder.replay()
        self.best.weights = self.parts.load(checkpoint, BEST)
        print(f"  train: resumed from step {step}", flush=True)

    def sum_up(self) -> None:
        """Bring the course up to date, with what it took the other processes."""
        self.meter.update(wait=True)
        costs = self.ranks.collect((self.course.energy_joules, self.course.peak_memory_bytes))
        told = [joules for joules, _ in costs if joules is not None]
        self.course.energy_joules = sum(told) if len(told) == len(costs) else None
        if not self.ranks.first and self.course.energy_joules is not None:
            self.course.energy_joules = 0.0  # the first has the sum
        self.course.peak_memory_bytes = max(peak for _, peak in costs)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.checkpoints.require_space(self._checkpoint_bytes())
        self.meter.mark("rest")
        self.guard.look(wait=True)
        self.sum_up()
        self.course.finished = self.course.stopped_early or self.state.global_step >= self.state.max_steps
        with self.writing(self.checkpoints) as folder:
            self.write_state(folder)
        self.meter.mark("checkpoints")

    def write_state(self, folder: Path) -> None:
        """Write all that a checkpoint holds: this process's parts, and the first process what all have."""
        self.write_random_numbers(folder)
        weights = {name: weight.detach() for name, weight in trainable(self.adapted).items()}
        self.parts.save(weights, folder, WEIGHTS)
        self.parts.save(self.best.weights, folder, BEST)
        if self.parts.sharded:
            self.parts.save_optimizer(cast("torch.optim.Optimizer", self.optimizer), folder)
        if not self.ranks.first:
            return
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        self.course.save(folder)

    def read_state(self, folder: Path) -> None:
        """Read what a resumed training reads, in the same way."""
        self._load_from_checkpoint(str(folder))
        self._load_optimizer_and_scheduler(str(folder))
        self._load_scaler(str(folder))
        self._load_rng_state(str(folder))
        self.best.weights = self.parts.load(folder, BEST)

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
        return {name: fingerprint_of(state) for name, state in parts.items()}

    def forget_batches(self) -> None:
        """Drop what was noted of batches that are none of the training's."""
        self.guard.batches.clear()
        self.counted.clear()
        self._total_train_tokens = 0
        for values in self._metrics.values():
            values.clear()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Put the checkpoint's adapter weights into the model, in their own type."""
        weights = self.parts.load(Path(resume_from_checkpoint), WEIGHTS)
        for name, parameter in trainable(self.adapted).items():
            part(parameter.data).copy_(weights[name])

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.parts.sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        torch.save(cast("Any", self.lr_scheduler).state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Undo what torch does when an optimiser's state is loaded: it rounds the state to the weights' type.

        Adafactor keeps its state in float32 for bfloat16 weights.
        """
        if checkpoint is None:
            return
        folder, optimizer = Path(checkpoint), cast("torch.optim.Optimizer", self.optimizer)
        if self.parts.sharded or not (folder / OPTIMIZER_NAME).is_file():
            self.parts.load_optimizer(optimizer, folder)
            saved = torch.load(folder / SCHEDULER_NAME, map_location="cpu", weights_only=True)
            cast("Any", self.lr_scheduler).load_state_dict(saved)
            return
        super()._load_optimizer_and_scheduler(checkpoint)
        saved = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True, mmap=True)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for number, exact in saved["state"].items():
            state = optimizer.state[weights[number]]
            for name, value in exact.items():
                if torch.is_tensor(value) and value.dtype != state[name].dtype:
                    state[name] = value.to(state[name].device, copy=True)

    def _checkpoint_bytes(self) -> int:
        return BYTES_PER_WEIGHT * sum(weight.numel() for weight in trainable(self.adapted).values())
