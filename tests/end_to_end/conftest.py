"""One finished run of the real pipeline on a tiny model, shared by all end-to-end tests."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse
from zenml.utils import source_utils

from materializers.registry import ARCHIVED, PRODUCTION, holder
from pipelines.cli import main
from pipelines.finetune import finetune
from pipelines.strict import StrictPipeline
from pipelines.versions import outputs_of
from tests.children import exit_code_of
from tests.end_to_end.killed_run import run_until
from tests.planted import TOKEN
from tests.tiny import write_model, write_rows
from tests.train.killed import KillPoint

ROOT = Path(__file__).resolve().parents[2]


STEPS = set(finetune.step_names) - {"export"}

KEPT_BACK: dict[str, Any] = {"gains": [{"figure": "loss", "by": 5.0}]}
"""A promotion that no run comes up to: other tests look at what the first run promoted."""


@dataclass(frozen=True)
class Workplace:
    """A folder with a tiny base model and rows, and runs of the pipeline on them, of a model of this name."""

    folder: Path
    model: str = "tiny"
    promotion: dict[str, Any] = field(default_factory=dict)
    """Parameters of every run that names no other ones."""

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
            "promotion": self.promotion,
        }
        for name, values in changes.items():
            parameters[name] = {**parameters.get(name, {}), **values}
        path = self.folder / "config.yaml"
        text = yaml.safe_dump({"model": {"name": self.model}, "parameters": parameters})
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

    def killed(self, event: str, path: str, **changes: dict[str, Any]) -> int:
        """Run the pipeline in a child that kills itself at the event; the exit code."""
        return exit_code_of(run_until, KillPoint(event, 1, path), self.config(**changes))

    def retire(self) -> None:
        """Leave nothing in production, as other tests expect."""
        present = holder(self.model, PRODUCTION)
        if present is not None:
            present.set_stage(ARCHIVED, force=True)


def qlora(*arguments: str, given: str | None = None) -> Result:
    """The command, with an answer to what it asks."""
    return CliRunner().invoke(main, arguments, input=given)


def one_line(result: Result) -> str:
    """What a command that failed says, in one line."""
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    return result.stderr


def uri(run: PipelineRunResponse, name: str) -> Path:
    """Where an artifact of a run lies."""
    return Path(outputs_of(run)[name].uri)


def loaded(run: PipelineRunResponse, name: str) -> Any:
    """An artifact of a run."""
    return outputs_of(run)[name].load()


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
