"""The training's curves in an experiment tracker."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

OnMetrics = Callable[[int, dict[str, float]], None]
"""Takes an optimiser step's number and its figures by name, as they come."""


@runtime_checkable
class LogsMetrics(Protocol):
    """A tracker that takes figures itself, as ZenML's for Comet does."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take the figures of a step."""


def nowhere(_step: int, _figures: dict[str, float]) -> None:
    """Where there is no tracker."""


def curves(tracker: object, flavor: str) -> OnMetrics:
    """What hands a step's figures to the tracker, whose run ZenML has opened and will close.

    ZenML has no common way to do so: MLflow's own is known here, and trackers that have a ``log_metrics``. Any other
    one gets no curves, which is said: a run isn't worth stopping over it.
    """
    if flavor == "mlflow":
        import mlflow

        # from another thread: a slow or unreachable server neither holds up the GPU nor ends the training
        return lambda step, figures: mlflow.log_metrics(figures, step=step, synchronous=False)
    if isinstance(tracker, LogsMetrics):
        return lambda step, figures: tracker.log_metrics(figures, step=step)
    print(f"  train: no curves for the experiment tracker, {flavor} has no log_metrics that takes them", flush=True)
    return nowhere
