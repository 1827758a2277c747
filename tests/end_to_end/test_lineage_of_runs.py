"""``qlora lineage``, ``qlora runs`` and ``qlora prune`` on what real runs left behind."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from zenml.client import Client
from zenml.models import PipelineRunResponse

from materializers.directory import FILES
from pipelines.prune import freed_bytes, remove, unneeded
from pipelines.versions import outputs_of
from tests.end_to_end.conftest import KEPT_BACK, Workplace, loaded, one_line, qlora, ran, uri


def test_the_lineage_of_a_version(first_run: PipelineRunResponse, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = qlora("lineage", first_run.name, "--html", str(page))
    assert result.exit_code == 0, result.output
    lines = [line.lstrip("│├└─ ") for line in result.stdout.splitlines()]
    for name in ("raw_rows", "split_rows", "blocks", "adapter", "quantized_model", "tokenizer", "this directory"):
        assert any(line.startswith(name) and line.endswith("[verified]") for line in lines), name
    assert str(first_run.id) in result.stdout.replace("\n", "")
    assert all(str(first_run.steps[step].id) in result.stdout for step in ("train", "merge"))
    assert "Promoted" not in page.read_text()
    assert page.read_text().count("<rect") == 10
    assert "<svg" in loaded(first_run, "lineage").html()


def test_a_folder_alone_has_its_lineage(first_run: PipelineRunResponse, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(uri(first_run, "merged_model") / FILES, copy)
    assert qlora("lineage", str(copy)).exit_code == 0
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = qlora("lineage", str(copy))
    assert result.exit_code == 1
    assert f"error: this directory: changed: model.safetensors in {copy}" in result.stderr


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("split_rows", "train.arrow"),
        ("adapter", "files/adapter_config.json"),
        ("model_lock", "report.json"),
    ],
)
def test_a_changed_byte_of_a_parent_is_named(first_run: PipelineRunResponse, name: str, file: str) -> None:
    path = uri(first_run, name) / file
    original = path.read_bytes()
    try:
        path.write_bytes(original.replace(b"e", b"f", 1))
        result = qlora("lineage", first_run.name)
    finally:
        path.write_bytes(original)
    assert result.exit_code == 1
    assert f"error: {name}: changed: {Path(file).name}" in result.stderr


def test_what_has_no_lineage_is_one_line(first_run: PipelineRunResponse, tmp_path: Path) -> None:
    for name, message in (
        ("no-such-run", "neither a folder nor the name of one run"),
        ("tiny:99", "has no version '99'"),
        (str(tmp_path), "missing; it says where the model comes from"),
    ):
        assert message in one_line(qlora("lineage", name))


def test_the_history_of_runs(first_run: PipelineRunResponse) -> None:
    result = qlora("runs", "--model", "tiny", "-n", "200")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if str(first_run.id)[:8] in line)
    assert "120 @ " in line
    assert "0/10" in line
    assert qlora("runs", "--model", "nobody").exit_code == 1


class Prunable(Workplace):
    """Short runs of a model of its own, in the store that all tests share."""

    def trained(self, seed: int, **changes: dict[str, Any]) -> PipelineRunResponse:
        few = {"max_prompts": 1, "max_new_tokens": 2, "sandbox": {"execute": "never"}}
        return self.run(training={"seed": seed, "max_steps": 4}, evaluation=few, **changes)


@pytest.fixture
def prunable(first_run: PipelineRunResponse, workplace: Workplace) -> Prunable:
    return Prunable(workplace.folder, "prunable")


def test_prune_removes_what_no_kept_version_needs(
    first_run: PipelineRunResponse, prunable: Prunable, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = prunable.trained(31, promotion=KEPT_BACK)
    staged = prunable.trained(32)
    new = prunable.trained(33, promotion=KEPT_BACK)
    assert ran(staged) == {"resolve", "train", "evaluate", "merge", "promote"}

    refused = qlora("prune", "--keep", "1", "--model", "prunable", given="n\n")
    adapter, merged = uri(old, "adapter"), uri(old, "merged_model")
    assert "adapter" in refused.stdout
    assert adapter.is_dir()

    doomed = unneeded(1, "prunable")
    freed, before = freed_bytes(doomed), on_disk(adapter.parents[4])
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", _killed)  # in the middle of the first folder
        patch.setattr(shutil, "rmtree", _killed)
        with pytest.raises(KeyboardInterrupt):
            remove(doomed)
    assert {one.artifact.id for one in unneeded(1, "prunable")} == {one.artifact.id for one in doomed}

    done = qlora("prune", "--keep", "1", "--model", "prunable", "--yes")
    assert done.exit_code == 0, done.output
    assert not adapter.exists()
    assert not merged.exists()
    assert unneeded(1, "prunable") == []
    assert before - on_disk(adapter.parents[4]) == freed > 0
    for run in (first_run, staged, new):
        assert qlora("lineage", run.name).exit_code == 0
        assert uri(run, "adapter").is_dir()
    assert uri(old, "evaluation_report").is_dir(), "reports stay"
    assert Client().get_model_version("prunable", 1).get_artifact("merged_model") is None

    assert ran(prunable.trained(33, promotion=KEPT_BACK)) == {"resolve"}
    again = prunable.trained(31, promotion=KEPT_BACK)
    assert {"train", "merge"} <= ran(again), "nothing comes from the cache whose files are gone"
    assert "quantize" not in ran(again), "what other versions need is still there"


def on_disk(folder: Path) -> int:
    """Bytes of its files, those that have several names once."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({about.st_ino: about.st_size for about in found}.values())


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_equal_work_has_an_equal_content_hash_whatever_run_did_it(
    first_run: PipelineRunResponse, workplace: Workplace
) -> None:
    artifact = outputs_of(first_run)["quantized_model"]
    values = json.loads((Path(artifact.uri) / FILES / "provenance.json").read_text())
    assert values["made"]["run"]["id"] == str(first_run.id)
    Client().update_step_run(first_run.steps["quantize"].id, cache_expires_at=first_run.created)
    run = workplace.run(promotion=KEPT_BACK)
    assert "quantize" in ran(run)
    assert outputs_of(run)["quantized_model"].content_hash == artifact.content_hash
    assert "train" not in ran(run)
