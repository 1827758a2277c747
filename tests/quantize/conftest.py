"""A tiny base model stored in every kind, once a session."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.quantize.report import QuantizationReport
from steps.resolve.locks import ModelLock
from tests.tiny_run import TinyRun

KINDS: dict[str, dict[str, str | bool]] = {
    "nf4, double": {"kind": "nf4"},
    "nf4": {"kind": "nf4", "double_quantization": False},
    "fp4, double": {"kind": "fp4", "double_quantization": True},
    "fp4": {"kind": "fp4", "double_quantization": False},
    "int8": {"kind": "int8"},
    "none": {"kind": "none"},
}


@dataclass(frozen=True)
class Stored:
    """One kind's artifact."""

    parameters: QuantizationParameters
    lock: ModelLock
    folder: Path
    report: QuantizationReport


@pytest.fixture(scope="session", params=KINDS)
def stored(request: pytest.FixtureRequest, tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """The base model of ``tiny_run`` in one kind."""
    parameters = QuantizationParameters.model_validate(KINDS[request.param])
    folder = tmp_path_factory.mktemp("stored")
    return Stored(parameters, tiny_run.lock, folder, quantize_model(tiny_run.lock, parameters, folder))
