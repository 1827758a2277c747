"""A ZenML pipeline that refuses a configuration it does not wholly understand. (being written)"""

from collections.abc import Callable
from typing import Any

from zenml import pipeline
from zenml.pipelines.pipeline_definition import Pipeline


def strict_pipeline(entrypoint: Callable[..., Any]) -> Pipeline:
    """Make a pipeline of ``entrypoint``."""
    return pipeline(entrypoint)
