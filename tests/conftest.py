"""What all tests of a worker share: one ZenML store; whatever store the developer has is left alone."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.tiny_run import TinyRun

# Set before any test module imports zenml: the import alone writes a configuration file where this points.
os.environ["ZENML_CONFIG_PATH"] = tempfile.mkdtemp(prefix="zenml-tests-")
os.environ["ZENML_ANALYTICS_OPT_IN"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # the models are tiny, and there is a worker for each core
if not hasattr(sys.modules["__main__"], "__file__"):  # a worker's has none, and ZenML takes its folder for the sources
    sys.modules["__main__"].__file__ = str(Path(__file__).parents[1] / "worker.py")
atexit.register(shutil.rmtree, os.environ["ZENML_CONFIG_PATH"], ignore_errors=True)


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a text as a configuration file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> "TinyRun":
    """A tiny Llama in 4 bits with its blocks, tokenizer and trained adapter; shared, so never changed."""
    from tests.tiny_run import make_tiny_run

    return make_tiny_run(tmp_path_factory.mktemp("tiny"))
