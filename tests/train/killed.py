"""Trainings in child processes that kill themselves at a chosen point, as SIGKILL from outside would."""

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from datasets import load_from_disk

from steps.train.checkpoint import Checkpoints, checkpoints_of
from steps.train.params import CheckpointParameters, TrainingParameters
from steps.train.plan.params import PlanParameters
from steps.train.report import TrainingReport
from steps.train.train import train_adapter
from tests.children import exit_code_of

if TYPE_CHECKING:
    from tests.tiny_run import TinyRun


@dataclass(frozen=True)
class Work:
    """What a child needs to train the tiny model, all of it on disk."""

    blocks: Path
    model: Path
    tokenizer: Path
    training: TrainingParameters
    checkpoints: CheckpointParameters
    plan: PlanParameters | None = None

    @classmethod
    def of(cls, run: "TinyRun", folder: Path) -> Self:
        """A tiny training with a checkpoint after every other step, in a folder of its own."""
        run.blocks.save_to_disk(folder / "blocks")
        checkpoints = CheckpointParameters(folder=str(folder / "checkpoints"), every_steps=2)
        return cls(folder / "blocks", run.model, run.tokenizer, run.training, checkpoints)

    def undisturbed(self, folder: Path) -> TrainingReport:
        """Train into ``folder`` with other checkpoints, which go with it."""
        return replace(self, checkpoints=CheckpointParameters(folder=f"{folder}-checkpoints")).train(folder)

    def store(self) -> Checkpoints:
        """Where the checkpoints lie."""
        blocks = load_from_disk(self.blocks)
        return checkpoints_of(blocks, self.model, self.tokenizer, self.training, self.checkpoints)

    def train(self, output: Path) -> TrainingReport:
        """Train, or go on training, in this process."""
        output.mkdir()
        blocks = load_from_disk(self.blocks)
        return train_adapter(blocks, self.model, self.tokenizer, self.training, output, self.store(), plan=self.plan)


@dataclass(frozen=True)
class KillPoint:
    """The ``count``-th time that something happens: an optimiser step, a layer's forward pass or an audit event."""

    event: str  # "optimizer", "forward" or the name of one of Python's audit events, such as "os.rename"
    count: int = 1
    path: str = ""  # part of the audit event's first argument


def train_until(work: Work, point: KillPoint, output: Path) -> int:
    """Train in a child that kills itself at the point; gives the exit code, ``-SIGKILL`` if it got there."""
    return exit_code_of(_train_in_child, work, point, output)


def _train_in_child(work: Work, point: KillPoint, output: Path) -> None:
    arm(point)
    work.train(output)


def arm(point: KillPoint) -> None:
    """Let this process be killed at the point."""
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    left = point.count

    def happened(*_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        if event == point.event and point.path in str(arguments[0]):
            happened()

    if point.event == "optimizer":
        register_optimizer_step_pre_hook(happened)
    elif point.event == "forward":
        register_module_forward_pre_hook(happened)
    else:
        sys.addaudithook(audited)
