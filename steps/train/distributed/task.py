"""A training as a folder, from which its processes read what to do and into which they write what came of it."""

import json
from pathlib import Path
from typing import Self

from datasets import Dataset, DatasetDict
from pydantic import BaseModel

from steps.files import write_whole
from steps.train.checkpoint import Checkpoints
from steps.train.params import CheckpointParameters, TrainingParameters
from steps.train.plan.params import PlanParameters

ARGUMENTS, BLOCKS, REPORT, METRICS = "arguments.json", "blocks", "report.json", "metrics.jsonl"
SPLITS = ("train", "validation")


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
    attempt: str = ""  # another one at each time that processes are started
    left: list[LeftPlan] = []

    def write(self, folder: Path) -> None:
        """Write the arguments; the file is there as a whole or not at all."""
        write_whole(folder / ARGUMENTS, self.model_dump_json())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What :meth:`write` wrote."""
        return cls.model_validate_json((folder / ARGUMENTS).read_text(encoding="utf-8"))

    def store(self) -> Checkpoints:
        """The checkpoints, which the process that started the others holds."""
        return Checkpoints(self.checkpoint_root, self.work, self.checkpoints)


def write_blocks(blocks: DatasetDict, folder: Path) -> None:
    """Write the splits that a training reads; datasets can't read an empty one, which is left out."""
    for name in SPLITS:
        if len(blocks[name]):
            blocks[name].save_to_disk(folder / BLOCKS / name)


def read_blocks(folder: Path) -> DatasetDict:
    """The blocks that were written beside the arguments."""
    found = {
        name: Dataset.load_from_disk(folder / BLOCKS / name) for name in SPLITS if (folder / BLOCKS / name).is_dir()
    }
    return DatasetDict({name: found.get(name, found["train"].select([])) for name in SPLITS})


def append_metrics(folder: Path, step: int, figures: dict[str, float]) -> None:
    """Leave a step's figures for the process that knows the experiment tracker."""
    with (folder / METRICS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps([step, figures]) + "\n")
