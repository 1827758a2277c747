"""Every configuration that the project ships passes the check and compiles."""

from pathlib import Path

import pytest
from zenml.client import Client
from zenml.config.compiler import Compiler
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

from pipelines.finetune import finetune

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def test_there_are_configurations() -> None:
    assert {"quickstart.yaml", "llama2-7b.yaml", "own-data.yaml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=[path.name for path in CONFIGS])
def test_a_shipped_configuration_compiles(path: Path) -> None:
    pipeline = finetune.with_options(config_path=str(path))
    pipeline.prepare()
    snapshot = Compiler().compile(
        pipeline=pipeline,
        stack=Client().active_stack,
        run_configuration=PipelineRunConfiguration.from_yaml(str(path)),
    )
    assert set(snapshot.step_configurations) == set(finetune.step_names)
