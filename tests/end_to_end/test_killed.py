"""A pipeline whose process is killed while it trains goes on from its checkpoint when it is run again."""

import signal
import subprocess
import sys
from typing import Any

from zenml.models import PipelineRunResponse

from tests.end_to_end.conftest import ROOT, Workplace, ran


def run_until(workplace: Workplace, event: str, path: str, changes: dict[str, dict[str, Any]]) -> int:
    """Run the pipeline in a process that kills itself at the event; gives the exit code."""
    command = [sys.executable, "-m", "tests.end_to_end.killed_run", str(workplace.config(**changes)), event, path]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def test_a_killed_run_is_resumed(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    """Killed twice, while training and while ZenML stores the adapter; the third run has nothing left to train."""
    changes: dict[str, dict[str, Any]] = {
        "training": {"seed": 9},
        "checkpoints": {"folder": "{folder}/killed", "every_steps": 2},
        "promotion": {"gains": [{"figure": "loss", "by": 5.0}]},  # other tests look at what the first run promoted
    }
    assert run_until(workplace, "open", ".writing-10/course.json", changes) == -signal.SIGKILL
    assert run_until(workplace, "shutil.move", ".step-", changes) == -signal.SIGKILL
    resumed = workplace.run(**changes)
    assert ran(resumed) == {"resolve", "train", "evaluate", "merge", "promote"}
    report = resumed.steps["train"].outputs["training_report"][0].load()
    assert report.resumed_from == [8, 12]
    assert "Resumed from step 8. Resumed from step 12." in report.html()
    (left,) = (workplace.folder / "killed").iterdir()
    assert [path.name[:5] for path in left.iterdir()] == ["base-"], "the next run's base answers are there"
