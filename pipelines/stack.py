"""The ZenML stack of this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from zenml.client import Client
from zenml.constants import ENV_ZENML_ACTIVE_STACK_ID

from steps.errors import ConfigError


def active_tracker() -> str | None:
    """The experiment tracker's name, None without one: ZenML opens a tracker's run for the steps that name it."""
    tracker = Client().active_stack.experiment_tracker
    return tracker.name if tracker else None


@contextmanager
def on_stack(name: str | None) -> Iterator[None]:
    """Make it the active one for the block, in this process alone; None leaves the active one.

    ``zenml pipeline run --stack`` writes it into the configuration that all processes share, and a killed one leaves
    it there.

    Raises:
        ConfigError: ZenML has no such stack.
    """
    if name is None:
        yield
        return
    try:
        stack = Client().get_stack(name)
    except KeyError as error:
        raise ConfigError(f"stack {name}: ZenML has no such stack; list them with: zenml stack list") from error
    before = os.environ.get(ENV_ZENML_ACTIVE_STACK_ID)
    os.environ[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)
    try:
        yield
    finally:
        del os.environ[ENV_ZENML_ACTIVE_STACK_ID]
        if before is not None:
            os.environ[ENV_ZENML_ACTIVE_STACK_ID] = before
