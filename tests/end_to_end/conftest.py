"""One finished run of the real pipeline on a tiny model, shared by all end-to-end tests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse
from zenml.utils import source_utils

from pipelines.finetune import finetune
from pipelines.strict import StrictPipeline
from tests.planted import TOKEN
from tests.tiny import write_model, write_rows

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Workplace:
    """A folder with a tiny base model and rows, and runs of the pipeline on them."""

    folder: Path

    def config(self, **changes: dict[str, Any]) -> Path:
        """A configuration file; ``changes`` go into the parameters of that name, with ``{folder}`` filled in."""
        parameters: dict[str, dict[str, Any]] = {
            "data": {"sources": [{"files": str(self.folder / "rows.jsonl")}]},
            "base_model": {"folder": str(self.folder / "base")},
            "splits": {"validation": 0.1, "test": 0.15},
            "training": {
                "max_steps": 12,
                "batch_size": 2,
                "gradient_accumulation": 1,
                "learning_rate": 0.005,
                "evaluate_every": 4,
            },
            "evaluation": {"max_prompts": 4, "max_new_tokens": 16, "sandbox": {"accept_risk": True}},
            "merging": {"max_prompts": 3, "max_new_tokens": 8},
        }
        for name, values in changes.items():
            parameters[name] = {**parameters.get(name, {}), **values}
        path = self.folder / "config.yaml"
        text = yaml.safe_dump({"model": {"name": "tiny"}, "parameters": parameters})
        path.write_text(text.replace("{folder}", str(self.folder)), encoding="utf-8")
        return path

    def run(self, **changes: dict[str, Any]) -> PipelineRunResponse:
        """Run the whole pipeline in this process."""
        return self.run_pipeline(finetune, **changes)

    def run_pipeline(self, pipeline: StrictPipeline, /, **changes: dict[str, Any]) -> PipelineRunResponse:
        """Run a pipeline in this process."""
        run = pipeline.with_options(config_path=str(self.config(**changes)))()
        assert run is not None
        return Client().get_pipeline_run(run.id)


def ran(run: PipelineRunResponse) -> set[str]:
    """The steps of a finished run that were not cached."""
    return {name for name, step in run.steps.items() if step.status == ExecutionStatus.COMPLETED}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The folder of the shared run; checkpoints and answers are in the user's cache folder, as by default."""
    source_utils.set_custom_source_root(str(ROOT))
    folder = tmp_path_factory.mktemp("workplace")
    write_model(folder / "base")
    write_rows(folder / "rows.jsonl", 120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("HF_TOKEN", TOKEN)  # for tests/end_to_end/test_no_secret_leaks.py
        yield Workplace(folder)


@pytest.fixture(scope="session")
def first_run(workplace: Workplace) -> PipelineRunResponse:
    """A run in which every step really ran."""
    return workplace.run()


@pytest.fixture(scope="session")
def load(first_run: PipelineRunResponse) -> Callable[[str, str], Any]:
    """Loads an artifact of the first run by step and name."""
    return lambda step, name: first_run.steps[step].outputs[name][0].load()
