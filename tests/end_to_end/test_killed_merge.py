"""A pipeline whose process is killed while it merges goes on with the finished shards when it is run again."""

import signal
from pathlib import Path
from typing import Any

from zenml.client import Client
from zenml.models import PipelineRunResponse

from tests.end_to_end.conftest import Workplace, ran
from tests.end_to_end.test_killed import run_until


def test_a_killed_merge_is_resumed(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    """Killed while ZenML stores the merged model: the next run has no shard to make, and none stays behind."""
    store = Path(Client().active_stack.artifact_store.path)
    others = set(store.glob(".step-*"))  # of tests that take a folder and no materializer
    changes: dict[str, dict[str, Any]] = {
        "merging": {"max_prompts": 2},
        "promotion": {"gains": [{"figure": "loss", "by": 5.0}]},  # other tests look at what the first run promoted
    }
    assert run_until(workplace, "shutil.move", ".step-", changes) == -signal.SIGKILL
    assert [path.name for path in store.glob(".merge-*/*.safetensors")] == ["model.safetensors"]
    resumed = workplace.run(**changes)
    assert ran(resumed) == {"resolve", "merge", "promote"}
    assert resumed.steps["merge"].outputs["merge_report"][0].load().resumed_shards == 1
    assert list(store.glob(".merge-*")) == []
    assert set(store.glob(".step-*")) <= others
