"""A small experiment tracker of our own, a real component of a ZenML stack: it keeps figures in this process."""

from typing import ClassVar

from zenml.config.step_run_info import StepRunInfo
from zenml.experiment_trackers.base_experiment_tracker import (
    BaseExperimentTracker,
    BaseExperimentTrackerFlavor,
)


class NotebookTracker(BaseExperimentTracker):
    """Writes down which steps opened a run and which figures came while one was open."""

    opened: ClassVar[list[str]] = []
    figures: ClassVar[list[tuple[int | None, dict[str, float]]]] = []
    running: ClassVar[bool] = False

    def prepare_step_run(self, info: StepRunInfo) -> None:
        """ZenML is about to run a step that names this tracker."""
        self.opened.append(info.pipeline_step_name)
        NotebookTracker.running = True

    def cleanup_step_run(self, info: StepRunInfo, step_failed: bool) -> None:
        """The step is over."""
        NotebookTracker.running = False

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take the figures of a step."""
        assert self.running
        self.figures.append((step, metrics))


class NotebookTrackerFlavor(BaseExperimentTrackerFlavor):
    """How ZenML finds it."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "notebook"

    @property
    def implementation_class(self) -> type[NotebookTracker]:
        """The tracker."""
        return NotebookTracker
