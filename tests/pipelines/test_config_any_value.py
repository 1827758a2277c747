"""Whatever stands in a configuration file, the check ends with a valid configuration or a ConfigError."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import StepConfigurationUpdate

from pipelines.config import check_config
from pipelines.finetune import finetune
from pipelines.origins import resolved_lines
from pipelines.schema import homes_of
from steps.errors import ConfigError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
KEYS = st.sampled_from(["r", "lora", "files", "epochs", "name", "a"]) | st.text(max_size=4) | st.integers()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)

PLACES = [
    *(
        home.split(".")
        for name, parameter in finetune.parameters.items()
        for _, home in [(name, f"parameters.{name}"), *homes_of(parameter.model, f"parameters.{name}")]
    ),
    *([name] for name in PipelineRunConfiguration.model_fields),
    *(["steps", "train", name] for name in StepConfigurationUpdate.model_fields),
    *(["settings", name] for name in ("resources", "docker", "orchestrator")),
    ["settings", "resources", "memory"],
    ["settings", "docker", "build_config"],
    ["schedule", "start_time"],
    ["model", "version"],
    ["retry", "delay"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples."""
    return tmp_path_factory.mktemp("any")


def valid() -> dict[str, Any]:
    """A valid configuration, to be spoilt."""
    return {
        "model": {"name": "coder"},
        "parameters": {"data": {"sources": [{"files": "rows.jsonl"}]}, "base_model": {"hub": "owner/name"}},
    }


def put(values: dict[str, Any], place: list[str], value: object) -> None:
    """Set ``values[place[0]][place[1]]...``; a list on the way stands for its first item."""
    for key in place[:-1]:
        child = values.setdefault(key, {})
        values = child[0] if isinstance(child, list) else child
    values[place[-1]] = value


def outcome(path: Path) -> str:
    """Check the file, and resolve it where it is valid."""
    try:
        config = check_config(path, finetune.parameters, finetune.step_names)
        config.require()
    except ConfigError as error:
        return str(error)
    return "\n".join(resolved_lines(config))


@settings(max_examples=400)
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_any_value_of_a_key(folder: Path, place: list[str], value: object) -> None:
    values = valid()
    put(values, place, value)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    assert outcome(path)


@settings(max_examples=200)
@given(text=st.text(alphabet="ab:-[]{}&*!|>'\" \n\t#?%@<~0.1", max_size=40))
def test_any_text(folder: Path, text: str) -> None:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert "config.yaml" in outcome(path)
