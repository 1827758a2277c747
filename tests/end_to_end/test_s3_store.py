"""The whole pipeline on a stack whose artifact store is S3: every materializer, the cache, and what reads the store."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zenml.client import Client
from zenml.models import PipelineRunResponse

from tests.end_to_end.conftest import KEPT_BACK, STEPS, Workplace, qlora, ran
from tests.planted import TOKEN, places_of
from tests.s3_store import SECRET_KEY, bucket, s3_stack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The server of the store that is active while this file's tests run."""
    with s3_stack("everything-on-s3") as address:
        yield address


@pytest.fixture(scope="module")
def place(workplace: Workplace) -> Workplace:
    return Workplace(workplace.folder, "on-s3")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where steps make temporary folders."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def first(endpoint: str, place: Workplace, temporary: Path) -> PipelineRunResponse:
    return place.run()


def replace(stored: Any, content: bytes) -> None:
    """Put another content where an object is; this process is to look again, as the next command would."""
    stored.put(Body=content)
    Client().active_stack.artifact_store.filesystem.invalidate_cache()  # type: ignore[attr-defined]  # S3's has one


def test_every_step_stores_on_s3(first: PipelineRunResponse, temporary: Path) -> None:
    assert ran(first) == STEPS
    assert not list(temporary.iterdir()), "what a step fetched or made goes when it ends"
    for step in first.steps.values():
        for found in step.outputs.values():
            assert found[0].uri.startswith("s3://")
            assert found[0].load() is not None


def test_the_same_again_runs_resolve_alone(first: PipelineRunResponse, place: Workplace) -> None:
    assert ran(place.run()) == {"resolve"}


def test_the_history_knows_the_run(first: PipelineRunResponse) -> None:
    shown = qlora("runs", "--model", "on-s3")
    assert shown.exit_code == 0, shown.output
    assert any(str(first.id)[:8] in line and "10" in line for line in shown.stdout.splitlines())


def test_the_lineage_is_checked_on_s3(first: PipelineRunResponse, endpoint: str) -> None:
    shown = qlora("lineage", first.name)
    assert shown.exit_code == 0, shown.output
    lines = [line.lstrip("│├└─ ") for line in shown.stdout.splitlines()]
    for name in ("raw_rows", "split_rows", "blocks", "adapter", "quantized_model", "tokenizer", "this directory"):
        assert any(line.startswith(name) and line.endswith("[verified]") for line in lines), name
    for step, name, file in (("train", "adapter", "files/adapter_config.json"), ("split", "split_rows", "train.arrow")):
        uri = first.steps[step].outputs[name][0].uri
        stored = bucket(endpoint).Object(f"{uri.removeprefix('s3://artifacts/')}/{file}")
        original = stored.get()["Body"].read()
        replace(stored, original.replace(b"e", b"f", 1))
        damaged = qlora("lineage", first.name)
        replace(stored, original)
        assert damaged.exit_code == 1
        assert f"error: {name}: changed: {Path(file).name} in {uri}" in damaged.stderr


def test_a_model_on_s3_answers_and_is_compared(first: PipelineRunResponse, place: Workplace) -> None:
    config = str(place.folder / "config.yaml")
    asked = qlora("generate", "Write a function.", "--model", "staging", "-c", config, "--max-new-tokens", "4")
    assert asked.exit_code == 0, asked.output
    compared = qlora("compare", first.name, first.name)
    assert compared.exit_code == 0, compared.output
    assert "loss" in compared.stdout


def test_prune_frees_s3(first: PipelineRunResponse, place: Workplace, endpoint: str) -> None:
    newer = place.run(training={"seed": 41})
    adapter = first.steps["train"].outputs["adapter"][0].uri.removeprefix("s3://artifacts/")
    assert list(bucket(endpoint).objects.filter(Prefix=f"{adapter}/"))
    kept_back = place.run(training={"seed": 43}, promotion=KEPT_BACK)
    staged = Client().get_model_version("on-s3", "staging")
    assert newer.model_version is not None
    assert staged.id == newer.model_version.id
    done = qlora("prune", "--keep", "1", "--model", "on-s3", "--yes")
    assert done.exit_code == 0, done.output
    assert not list(bucket(endpoint).objects.filter(Prefix=f"{adapter}/"))
    for run in (newer, kept_back):
        assert qlora("lineage", run.name).exit_code == 0


def test_credentials_are_nowhere(first: PipelineRunResponse, endpoint: str, place: Workplace) -> None:
    contents = [one.get()["Body"].read() for one in bucket(endpoint).objects.all()]
    assert any(str(first.id).encode() in content for content in contents)
    for credential in (SECRET_KEY, TOKEN):
        assert not [content for content in contents if credential.encode() in content]
        assert places_of(credential, Path(os.environ["ZENML_CONFIG_PATH"]), place.folder) == []
