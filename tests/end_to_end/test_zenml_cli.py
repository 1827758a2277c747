"""The pipeline as an engineer triggers it: ``zenml pipeline run``."""

import os
import subprocess
import sys
from pathlib import Path

from zenml.models import PipelineRunResponse

from tests.end_to_end.conftest import ROOT, Workplace

ZENML = Path(sys.executable).with_name("zenml")


def zenml(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the ``zenml`` command from the project's root, in the tests' own store."""
    environment = {**os.environ, "ZENML_LOGGING_COLORS_DISABLED": "true", "PYTHONHASHSEED": "1"}
    return subprocess.run(
        [ZENML, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_a_run_ends_with_its_summary(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    config = workplace.config(training={"seed": 7})
    result = zenml("pipeline", "run", "pipelines.finetune.finetune", "-c", str(config))
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "12/12" in output, "the training's progress line"
    for text in ("base", "tuned", "Promoted to staging", "merged model", "make dashboard"):
        assert text in output
    merged = next(line.split()[-1] for line in output.splitlines() if line.strip().startswith("merged model"))
    assert (Path(merged) / "model.safetensors").is_file()
    for step in ("ingest", "validate", "split", "format", "quantize"):
        assert f"Using cached version of step {step}" in output.replace("`", ""), "another process, the same cache"
    assert "Warning" not in output
    assert "Traceback" not in output
