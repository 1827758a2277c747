"""A pipeline whose process is killed goes on, when it is run again, from what was finished."""

import signal
from pathlib import Path
from typing import Any

from zenml.client import Client
from zenml.models import PipelineRunResponse

from tests.end_to_end.conftest import KEPT_BACK, Workplace, loaded, ran


def test_a_killed_training_is_resumed(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    """Killed twice, while training and while ZenML stores the adapter; the third run has nothing left to train."""
    changes: dict[str, dict[str, Any]] = {
        "training": {"seed": 9},
        "checkpoints": {"folder": "{folder}/killed", "every_steps": 2},
        "promotion": KEPT_BACK,
    }
    assert workplace.killed("open", ".writing-10/course.json", **changes) == -signal.SIGKILL
    assert workplace.killed("shutil.move", ".step-", **changes) == -signal.SIGKILL
    resumed = workplace.run(**changes)
    assert ran(resumed) == {"resolve", "train", "evaluate", "merge", "promote"}
    report = loaded(resumed, "training_report")
    assert report.resumed_from == [8, 12]
    assert "Resumed from step 8. Resumed from step 12." in report.html()
    (left,) = (workplace.folder / "killed").iterdir()
    assert [path.name[:5] for path in left.iterdir()] == ["base-"], "the next run's base answers are there"


def test_a_killed_merge_is_resumed(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    """Killed while ZenML stores the merged model: the next run has no shard to make, and none stays behind."""
    store = Path(Client().active_stack.artifact_store.path)
    others = set(store.glob(".step-*"))  # of tests that take a folder and no materializer
    changes: dict[str, dict[str, Any]] = {
        "merging": {"max_prompts": 2},
        "promotion": KEPT_BACK,
    }
    assert workplace.killed("shutil.move", ".step-", **changes) == -signal.SIGKILL
    assert [path.name for path in store.glob(".merge-*/*.safetensors")] == ["model.safetensors"]
    resumed = workplace.run(**changes)
    assert ran(resumed) == {"resolve", "merge", "promote"}
    assert loaded(resumed, "merge_report").resumed_shards == 1
    assert list(store.glob(".merge-*")) == []
    assert set(store.glob(".step-*")) <= others
