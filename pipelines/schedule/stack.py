"""The ZenML stack of this process."""

import os

from steps.errors import ConfigError


def use_stack(name: str | None) -> None:
    """Make it the active one of this process alone: what other processes use stays. None: leave the active one.

    Raises:
        ConfigError: ZenML has no such stack.
    """
    if name is None:
        return
    from zenml.client import Client
    from zenml.constants import ENV_ZENML_ACTIVE_STACK_ID

    try:
        os.environ[ENV_ZENML_ACTIVE_STACK_ID] = str(Client().get_stack(name).id)
    except KeyError as error:
        raise ConfigError(f"stack {name}: ZenML has no such stack; list them with: zenml stack list") from error
