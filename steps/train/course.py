"""What a training knows of its own course, beyond what transformers' trainer keeps; saved with each checkpoint."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel

from steps.train.report import Measurement, SkippedStep, TrainedStep

COURSE = "course.json"

TRAINING = ("data", "forward", "backward", "captured", "optimizer", "rest")
"""The phases of training alone; the others are start, evaluation and checkpoints."""


class Course(BaseModel):
    """The figures so far, summed over all processes that took part, without work that a kill undid.

    The callbacks and the meter write into it.
    """

    steps: list[TrainedStep] = []
    validation: list[Measurement] = []
    skipped: list[SkippedStep] = []
    best_step: int = 0
    best_loss: float | None = None
    without_improvement: int = 0
    stopped_early: bool = False
    finished: bool = False
    planned_steps: int = 0
    resumed_from: list[int] = []
    epochs: float = 0.0
    tokens: int = 0
    seconds_in: dict[str, float] = {}
    energy_joules: float | None = 0.0  # None where a process could not tell
    peak_memory_bytes: int = 0

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(self.seconds_in.values())

    @property
    def training_seconds(self) -> float:
        """Without start, evaluations and checkpoints."""
        return sum(self.seconds_in.get(phase, 0.0) for phase in TRAINING)

    @property
    def last_step(self) -> int:
        """The last optimiser step, taken or skipped; 0 before the first."""
        taken = self.steps[-1].step if self.steps else 0
        return max(taken, self.skipped[-1].step if self.skipped else 0)

    def save(self, folder: Path) -> None:
        """Write ``course.json``; floats are read back as the same floats."""
        (folder / COURSE).write_text(self.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The course as it was when the checkpoint in ``folder`` was written."""
        return cls.model_validate_json((folder / COURSE).read_text(encoding="utf-8"))

    def resume(self, folder: Path, step: int) -> None:
        """Take over the course that led to the checkpoint in ``folder``, and add what this process has cost so far.

        In place, since callbacks and meter hold this very object.
        """
        before, own = self.load(folder), self.model_copy()
        for name in type(self).model_fields:
            setattr(self, name, getattr(before, name))
        for phase, seconds in own.seconds_in.items():
            self.seconds_in[phase] = self.seconds_in.get(phase, 0.0) + seconds
        told = before.energy_joules is not None and own.energy_joules is not None
        self.energy_joules = (before.energy_joules or 0.0) + (own.energy_joules or 0.0) if told else None
        self.peak_memory_bytes = max(before.peak_memory_bytes, own.peak_memory_bytes)
        self.resumed_from = [*before.resumed_from, step]
