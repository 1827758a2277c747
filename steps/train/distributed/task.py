"""A training as a folder, from which its processes read what to do and into which they write what came of it."""

import json
import time
import traceback
from pathlib import Path
from typing import Self

from datasets import DatasetDict, load_from_disk
from pydantic import BaseModel

from steps.train.checkpoint import Checkpoints
from steps.train.params import CheckpointParameters, TrainingParameters
from steps.train.plan.params import PlanParameters

ARGUMENTS, BLOCKS, REPORT, METRICS = "arguments.json", "blocks", "report.json", "metrics.jsonl"


class LeftPlan(BaseModel):
    """A plan that a former attempt left, by its place among those of the planner."""

    plan: str
    reason: str
    plain: bool  # whether kernels failed and the plans without them follow; else memory was short


class SharedTask(BaseModel):
    """The arguments of ``train_adapter`` by their folders, and the plans that were tried."""

    model_folder: Path
    tokenizer_folder: Path
    training: TrainingParameters
    plan: PlanParameters
    output: Path
    checkpoint_root: Path
    work: str
    checkpoints: CheckpointParameters
    processes: int
    left: list[LeftPlan] = []

    def write(self, folder: Path) -> None:
        """Write the arguments; the file is there as a whole or not at all."""
        unfinished = folder / f".{ARGUMENTS}"
        unfinished.write_text(self.model_dump_json(), encoding="utf-8")
        unfinished.rename(folder / ARGUMENTS)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What :meth:`write` wrote."""
        return cls.model_validate_json((folder / ARGUMENTS).read_text(encoding="utf-8"))

    def store(self) -> Checkpoints:
        """The checkpoints, which the process that started the others holds."""
        return Checkpoints(self.checkpoint_root, self.work, self.checkpoints)


def read_blocks(folder: Path) -> DatasetDict:
    """The blocks that were written beside the arguments."""
    blocks = load_from_disk(folder / BLOCKS)
    assert isinstance(blocks, DatasetDict)  # noqa: S101 - for the type checker; we wrote them
    return blocks


class Failure(BaseModel):
    """How a process ended."""

    rank: int
    at: float  # seconds since the epoch
    kind: str  # of the exception
    message: str
    traceback: str
    left: LeftPlan | None = None  # the plan that a smaller one may follow

    def write(self, folder: Path) -> None:
        """Leave it for the process that started this one."""
        (folder / f"failure-{self.rank}.json").write_text(self.model_dump_json(), encoding="utf-8")


def failure_of(error: BaseException, rank: int, left: LeftPlan | None) -> Failure:
    """What is known of an error that ends a process."""
    shown = "".join(traceback.format_exception(error))
    return Failure(rank=rank, at=time.time(), kind=type(error).__name__, message=str(error), traceback=shown, left=left)


def failures(folder: Path) -> list[Failure]:
    """Those that processes left, the first to fail first."""
    found = [Failure.model_validate_json(path.read_text(encoding="utf-8")) for path in folder.glob("failure-*.json")]
    return sorted(found, key=lambda failure: failure.at)


def append_metrics(folder: Path, step: int, figures: dict[str, float]) -> None:
    """Leave a step's figures for the process that knows the experiment tracker."""
    with (folder / METRICS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps([step, figures]) + "\n")
