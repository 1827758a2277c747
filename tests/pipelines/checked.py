"""A small valid configuration, and what the check says of one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from zenml.config.base_settings import BaseSettings

from pipelines.config import CheckedConfig, check_config
from pipelines.finetune import finetune
from steps.errors import ConfigError

TOP = """\
model:
  name: coder
parameters:
  data:
    sources:
      - files: rows.jsonl
  base_model:
    hub: owner/name
"""
"""A valid configuration of eight lines; what a test adds stands on line 9 and below."""

Write = Callable[[str], Path]


class LocalSettings(BaseSettings):
    """Settings of a stack component, as a stack would report them."""

    synchronous: bool = True


def check(path: Path) -> CheckedConfig:
    """Check and raise."""
    config = check_config(path, finetune.parameters, finetune.step_names, {"orchestrator": LocalSettings})
    config.require()
    return config


def complaint(path: Path) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(ConfigError) as caught:
        check(path)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()
