"""Exports of the merged model, which every test here starts from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset

from steps.export.export import export_model
from steps.export.params import ExportParameters
from steps.export.report import ExportReport
from steps.promote.report import PromotionDecision
from tests.tiny_run import TinyRun

Export = Callable[..., tuple[Path, ExportReport]]


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
