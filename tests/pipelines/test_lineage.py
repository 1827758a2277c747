"""The record in a directory's provenance, and the lineage that is told from it."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.lineage import shown, wrong
from steps.errors import ModelError
from steps.lineage.report import DIRECTORY
from steps.lineage.sources import revision
from steps.lineage.tell import tell
from steps.page import render
from steps.provenance import PROVENANCE, decisive_hashes, read_provenance, write_provenance
from steps.record import (
    ArtifactRecord,
    Record,
    RunRecord,
    SourceRecord,
    check_folder,
    files_of,
    read_record,
    without_folders,
    write_record,
)
from steps.resolve.locks import Environment, LockedSource

LOCK: dict[str, Any] = {"name": "base", "hub": "owner/base", "commit": "c0ffee", "files": {"model.safetensors": "5a"}}
TRAINING = {"seed": 7, "lora": {"r": 64, "target_modules": ["q_proj", "v_proj"]}}


def record(
    step: str, *, dirty: bool = False, torch: str = "2.13.0", parents: dict[str, ArtifactRecord] | None = None
) -> Record:
    return Record(
        at="2026-01-02T03:04:05+00:00",
        run=RunRecord(
            id="run-id", name="a-run", step=step, step_id=f"{step}-id", model="tiny", version="3", version_id="v"
        ),
        environment=Environment(
            code_commit="abc123",
            code_dirty=dirty,
            python="3.11",
            libraries={"torch": torch},
            platform="Linux",
            processor="a processor",
            cores=2,
            memory_gb=25.3,
            accelerators=["a card"],
        ),
        config={"format": {"prompt": {"template": "chatml"}}},
        sources=[SourceRecord(name="data/<rows>.jsonl", revision="sha256:27ba", files={"rows.jsonl": "27ba"})],
        data=[
            ArtifactRecord(name="raw_rows", version="1", id="raw-id", content_hash="1", rows={"rows": 1200}),
            ArtifactRecord(
                name="split_rows", version="1", id="split-id", content_hash="1", rows={"train_rows": 9, "test_rows": 2}
            ),
        ],
        figures={"training_report": {"steps": 12, "tokens": 10404}},
        parents=parents or {},
    )


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """A merged model's folder, made by a later commit and another torch than its adapter."""
    folder = tmp_path / "merged"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "sub" / "config.json").write_text("{}")
    adapter = ArtifactRecord(
        name="adapter",
        version="2",
        id="adapter-id",
        content_hash="0123456789abcdef",
        record=record("train", torch="2.12.0"),
    )
    write_provenance(folder, base_model=LOCK, adapter={"base_model": LOCK, "training": TRAINING}, merging={})
    made = record("merge", dirty=True, parents={"adapter": adapter})
    write_record(folder, made.model_copy(update={"files": files_of(folder)}))
    return folder


def provenance(folder: Path) -> str:
    return (folder / PROVENANCE).read_text(encoding="utf-8")


def recorded(folder: Path) -> Record:
    found = read_record(provenance(folder))
    assert found is not None
    return found


def values(folder: Path) -> dict[str, dict[str, str]]:
    later = {"evaluation_report": {"base_loss": 2.0, "tuned_loss": 1.5, "isolated": True}}
    told = tell("it", provenance(folder), later)
    return {branch.title: {entry.name: entry.value for entry in branch.entries} for branch in told.branches}


def test_the_folder_alone_says_where_it_comes_from(merged: Path) -> None:
    said = values(merged)
    assert said["data"]["data/<rows>.jsonl"] == "sha256:27ba (1 file)"
    assert said["data"]["raw_rows"] == "1,200 rows"
    assert said["data"]["split_rows"] == "9 train, 2 test"
    assert said["base model"]["revision"] == "c0ffee"
    assert said["recipe"]["training.lora.target_modules"] == "q_proj, v_proj"
    assert said["recipe"]["prompt.template"] == "chatml"
    assert said["training"]["tokens"] == "10404"
    assert said["evaluation"] == {"loss": "2.0 base, 1.5 tuned", "isolated": "True"}
    assert said["code"] == {"merge": "abc123 (with uncommitted changes)", "train": "abc123 (clean)"}
    assert said["libraries"]["torch"] == "2.13.0 (merge); 2.12.0 (train)"
    assert "a card" in said["hardware"]["train"]
    assert all(text in said["runs and steps"]["train"] for text in ("tiny:3", "a-run", "run-id", "train-id"))
    assert said["hashes"]["adapter"] == "version 2, content 0123456789ab"


def test_a_record_decides_nothing(merged: Path) -> None:
    before, text = decisive_hashes(merged), provenance(merged)
    again = recorded(merged).model_copy(update={"at": "another day"})
    write_record(merged, again)
    assert provenance(merged) != text
    assert decisive_hashes(merged) == before
    assert set(read_provenance(merged)) == {"base_model", "adapter", "merging"}
    write_provenance(merged, base_model={**LOCK, "commit": "other"}, adapter={}, merging={})
    assert decisive_hashes(merged) != before


def test_what_is_given_away_names_no_folder_and_is_verified(tmp_path: Path) -> None:
    """Of files that lie together what tells them apart stays, as does a prompt that begins like a path."""
    files = {"/home/someone/rows/a/train.jsonl": "1", "/home/someone/rows/b/train.jsonl": "2"}
    source = SourceRecord(name="/home/someone/rows/*/train.jsonl", revision="sha256:12", files=files)
    write_provenance(tmp_path, base_model={**LOCK, "hub": "", "folder": "/home/someone/base", "url": "https://a/b"})
    config = {"format": {"system": "/no_think", "paths": ["/home/someone/x/", "owner/base"]}}
    write_record(tmp_path, record("merge").model_copy(update={"sources": [source], "config": config}))
    (tmp_path / PROVENANCE).write_text(without_folders(provenance(tmp_path)))
    assert "someone" not in provenance(tmp_path)
    assert read_provenance(tmp_path)["base_model"] == {**LOCK, "hub": "", "folder": "base", "url": "https://a/b"}
    given = recorded(tmp_path)
    assert given.sources[0].files == {"a/train.jsonl": "1", "b/train.jsonl": "2"}
    assert given.config == {"format": {"system": "/no_think", "paths": ["x", "owner/base"]}}
    assert check_folder(tmp_path, given) == []


def test_an_untouched_folder_is_verified(merged: Path) -> None:
    assert check_folder(merged, recorded(merged)) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "found"),
    [
        ("model.safetensors", "weights", "weighty", "changed: model.safetensors"),
        ("sub/config.json", "{}", "{} ", "changed: sub/config.json"),
        (PROVENANCE, "2026-01-02", "2026-01-03", "changed: provenance.json"),
        (PROVENANCE, '"sha256": "', '"sha256":  "', "changed: provenance.json"),
        ("more.bin", "", "x", "new: more.bin"),
    ],
)
def test_a_changed_byte_is_named(merged: Path, name: str, old: str, new: str, found: str) -> None:
    path = merged / name
    before = path.read_text() if path.exists() else ""
    path.write_text(before.replace(old, new, 1) if old else new)
    assert check_folder(merged, recorded(merged)) == [found]


def test_a_missing_file_is_named(merged: Path) -> None:
    (merged / "model.safetensors").unlink()
    assert check_folder(merged, recorded(merged)) == ["missing: model.safetensors"]


def test_what_the_hashes_said_is_shown(merged: Path) -> None:
    told = tell("it", provenance(merged), {})
    states = {DIRECTORY: "changed: model.safetensors in /m", "adapter-id": "not here", "raw-id": "verified"}
    checked = told.checked(states)
    assert wrong(checked) == ["this directory: changed: model.safetensors in /m"]
    assert checked.states_of_steps() == {
        "ingest": "verified",
        "train": "not here",
        "merge": "changed: model.safetensors in /m",
    }
    text = shown(checked)
    assert "1,200 rows  [verified]" in text
    assert "[not here]" in text
    assert max(map(len, text.splitlines())) <= 120
    html = render(checked.page())
    assert "1 changed" in html
    assert html.count("<rect") == 10
    assert "data/&lt;rows&gt;.jsonl" in html
    assert "src=" not in html
    assert wrong(told) == []


def test_without_a_record_there_is_no_lineage(tmp_path: Path) -> None:
    write_provenance(tmp_path, base_model=LOCK)
    with pytest.raises(ModelError, match=r"its provenance\.json has no record of a run"):
        tell("it", provenance(tmp_path), {})


def test_a_record_is_read_as_it_was_written(merged: Path) -> None:
    values = json.loads(provenance(merged))
    assert recorded(merged).parents["adapter"].record == record("train", torch="2.12.0")
    assert values["made"]["files"].keys() == {"model.safetensors", "sub/config.json"}


def test_a_source_has_one_revision() -> None:
    assert revision(LockedSource(name="a", commit="c1")) == "c1"
    assert revision(LockedSource(name="a", version="1.2", files={"x": "1"})) == "1.2"
    assert revision(LockedSource(name="a", files={"x": "1"})) == "sha256:1"
    two = {revision(LockedSource(name="a", files={"x": "1", "y": other})) for other in ("2", "3")}
    assert len(two) == 2
