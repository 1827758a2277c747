"""A merged model that every test of the exports starts from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset

from steps.export.export import export_model
from steps.export.params import ExportParameters
from steps.export.report import ExportReport
from steps.merge.merge import merge_adapter
from steps.promote.report import PromotionDecision
from tests.tiny_run import FEW_ANSWERS, TinyRun

Export = Callable[..., tuple[Path, ExportReport]]


@pytest.fixture(scope="session")
def merged(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's merged model; shared, so never changed."""
    output = tmp_path_factory.mktemp("merged")
    test = tiny_run.examples["test"]
    folders = (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer)
    merge_adapter(tiny_run.lock, *folders, test, FEW_ANSWERS, output)
    return output


@pytest.fixture
def changeable(merged: Path, tmp_path: Path) -> Path:
    """A copy of the merged model for a test to change."""
    return Path(shutil.copytree(merged, tmp_path / "changeable"))


@pytest.fixture
def export(tiny_run: TinyRun, merged: Path, tmp_path: Path) -> Export:
    """Exports the merged model, or another one, and gives the folder and the report."""

    def run(model: Path = merged, promoted: bool = True, **exports: object) -> tuple[Path, ExportReport]:
        output = tmp_path / "exported"
        output.mkdir()
        decision = PromotionDecision(promoted=promoted, stage="staging", conditions=[])
        rows: Dataset = tiny_run.examples["test"]
        parameters = ExportParameters.model_validate(exports)
        return output, export_model(model, tiny_run.adapter, rows, decision, parameters, output)

    return run
