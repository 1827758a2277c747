"""The experiment tracker of the active stack."""

from zenml.client import Client


def active_tracker() -> str | None:
    """Its name, for the step that uses it: ZenML opens a tracker's run for the steps that name it; None without one."""
    tracker = Client().active_stack.experiment_tracker
    return tracker.name if tracker else None
