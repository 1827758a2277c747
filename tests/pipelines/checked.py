"""A small valid configuration, and what the check says of one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from zenml.config.base_settings import BaseSettings

from pipelines.config import CheckedConfig, Parameter, check_config
from steps.errors import ConfigError
from steps.evaluate.params import EvaluationParameters
from steps.export.params import ExportParameters
from steps.format.params import PromptParameters
from steps.merge.params import MergeParameters
from steps.promote.params import PromotionParameters
from steps.quantize.params import QuantizationParameters
from steps.resolve.params import BaseModelParameters, DataParameters
from steps.split.params import SplitParameters
from steps.train.params import TrainingParameters
from steps.validate.params import ValidationParameters

PARAMETERS = {
    "data": Parameter(DataParameters, required=True),
    "base_model": Parameter(BaseModelParameters, required=True),
    "validation": Parameter(ValidationParameters, required=False),
    "splits": Parameter(SplitParameters, required=False),
    "prompt": Parameter(PromptParameters, required=False),
    "quantization": Parameter(QuantizationParameters, required=False),
    "training": Parameter(TrainingParameters, required=False),
    "evaluation": Parameter(EvaluationParameters, required=False),
    "merging": Parameter(MergeParameters, required=False),
    "promotion": Parameter(PromotionParameters, required=False),
    "exports": Parameter(ExportParameters, required=False),
}
STEPS = [
    "resolve",
    "ingest",
    "validate",
    "split",
    "format",
    "quantize",
    "train",
    "evaluate",
    "merge",
    "promote",
    "export",
]

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
    config = check_config(path, PARAMETERS, STEPS, {"orchestrator": LocalSettings})
    config.require()
    return config


def complaint(path: Path) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(ConfigError) as caught:
        check(path)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()
