"""What all tests of a worker share: one ZenML store; whatever store the developer has is left alone."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from steps.merge.report import MergeReport
    from tests.tiny_run import TinyRun

# Set before any test module imports zenml: the import alone writes a configuration file where this points.
os.environ["ZENML_CONFIG_PATH"] = tempfile.mkdtemp(prefix="zenml-tests-")
os.environ["ZENML_ANALYTICS_OPT_IN"] = "false"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the same everywhere; make test-gpu names a GPU
os.environ["OMP_NUM_THREADS"] = "1"  # the models are tiny, and there is a worker for each core
atexit.register(shutil.rmtree, os.environ["ZENML_CONFIG_PATH"], ignore_errors=True)

if "PYTEST_XDIST_WORKER" in os.environ:  # ZenML takes the folder of the main module, and a worker's has none
    from zenml.utils.source_utils import set_custom_source_root

    set_custom_source_root(str(Path(__file__).parents[1]))

settings.register_profile("any machine", deadline=None)  # 200 ms an example is a promise that a busy one breaks
settings.load_profile("any machine")


@pytest.fixture(scope="module", autouse=True)
def _imported_for_good() -> None:
    """Let no garbage collection go through what is imported by now: each training asks for one, and so do others."""
    gc.freeze()


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

    run = make_tiny_run(tmp_path_factory.mktemp("tiny"))
    gc.freeze()
    return run


@pytest.fixture(scope="session")
def tiny_merge(tiny_run: "TinyRun", tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, MergeReport]":
    """The merged model of ``tiny_run``, without a card, and what the merge reports; shared, so never changed."""
    folder = tmp_path_factory.mktemp("merged") / "merged"
    return folder, tiny_run.merge(folder)


@pytest.fixture(scope="session")
def merged(tiny_merge: "tuple[Path, MergeReport]") -> Path:
    """The folder of ``tiny_merge``."""
    return tiny_merge[0]
