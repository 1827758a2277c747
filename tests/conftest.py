"""One ZenML store for the whole session; whatever store the developer has is left alone."""

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

# Set before any test module imports zenml: the import alone writes a configuration file where this points.
os.environ["ZENML_CONFIG_PATH"] = tempfile.mkdtemp(prefix="zenml-tests-")
os.environ["ZENML_ANALYTICS_OPT_IN"] = "false"


@pytest.fixture(scope="session", autouse=True)
def _zenml_store() -> Iterator[None]:
    """Remove the store when the session ends."""
    yield
    shutil.rmtree(os.environ["ZENML_CONFIG_PATH"], ignore_errors=True)
