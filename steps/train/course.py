"""What a training knows of its own course, beyond what transformers' trainer keeps; saved with each checkpoint."""

import time
from pathlib import Path
from typing import Self

from pydantic import BaseModel, PrivateAttr

from steps.train.report import Measurement, SkippedStep, TrainedStep

COURSE = "course.json"


class Course(BaseModel):
    """The figures so far; the callbacks write into it."""

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
    seconds_before: float = 0.0

    _start: float = PrivateAttr(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the training was first started, without work that a kill undid."""
        return self.seconds_before + time.monotonic() - self._start

    @property
    def last_step(self) -> int:
        """The last optimiser step, taken or skipped; 0 before the first."""
        taken = self.steps[-1].step if self.steps else 0
        return max(taken, self.skipped[-1].step if self.skipped else 0)

    def save(self, folder: Path) -> None:
        """Write ``course.json``; floats are read back as the same floats."""
        saved = self.model_copy(update={"seconds_before": self.seconds})
        (folder / COURSE).write_text(saved.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The course as it was when the checkpoint in ``folder`` was written, its clock going on from there."""
        return cls.model_validate_json((folder / COURSE).read_text(encoding="utf-8"))
