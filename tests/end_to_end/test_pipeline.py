"""The whole pipeline, for real: ZenML's client and store, 4-bit layers, training, merging, promotion."""

import pickletools
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from zenml.client import Client
from zenml.models import PipelineRunResponse

from pipelines.data import data
from pipelines.lineage import lineage_of
from pipelines.runs import COLUMNS, history, row
from steps.errors import ConfigError, DataError, ModelError
from tests.end_to_end.conftest import KEPT_BACK, STEPS, Workplace, loaded, ran
from tests.tiny import write_rows


def store() -> Path:
    """The local artifact store."""
    return Path(Client().active_stack.artifact_store.path)


def test_every_step_ran_and_every_artifact_loads(first_run: PipelineRunResponse) -> None:
    assert ran(first_run) == STEPS
    artifacts = {name: found[0] for step in first_run.steps.values() for name, found in step.outputs.items()}
    assert len(artifacts) == 32
    for artifact in artifacts.values():
        assert artifact.load() is not None
        assert artifact.content_hash
        pages = [Path(page.uri).read_text() for page in artifact.visualizations or () if page.type == "html"]
        assert pages, artifact.name
        for page in pages:
            assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//|url\([\"']?(https?:)?//|@import", page), (
                artifact.name
            )


def test_tuned_is_better_and_promoted(first_run: PipelineRunResponse) -> None:
    assert loaded(first_run, "evaluation_report").figure("loss").verdict == "better"
    assert loaded(first_run, "promotion_decision").promoted
    version = Client().get_model_version("tiny", "staging")
    for name in ("adapter", "merged_model", "evaluation_report", "merge_report", "promotion_decision"):
        linked = version.get_artifact(name)
        assert linked is not None
        step = next(step for step in first_run.steps.values() if name in step.outputs)
        assert linked.id == step.outputs[name][0].id
    figures: dict[str, Any] = version.run_metadata
    assert figures["promoted"] is True
    assert figures["tuned_loss"] < figures["base_loss"]


def test_the_same_again_runs_resolve_alone(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    run = workplace.run()
    assert ran(run) == {"resolve"}
    assert run.model_version is not None
    first, again = (
        Client().get_model_version("tiny", one.model_version.number) for one in (first_run, run) if one.model_version
    )
    for step in run.steps.values():
        for name, found in step.outputs.items():
            linked = again.get_artifact(name)
            assert linked is not None, name
            assert linked.id == found[0].id, name
    figures = ("promoted", "base_loss", "tuned_loss", "base_stops", "tuned_stops")
    assert [again.run_metadata[name] for name in figures] == [first.run_metadata[name] for name in figures]
    tags = {tag.name for tag in first.tags}
    assert {"base-base", "promoted"} < tags
    assert len([tag for tag in tags if tag.startswith("data-")]) == 1
    assert {tag.name for tag in again.tags} == {*tags, "unchanged"}
    assert again.run_metadata["equals"] == f"tiny:{first.number}"
    assert row(run)[COLUMNS.index("stage")] == f"= tiny:{first.number}"
    assert lineage_of(f"tiny:{again.number}").name == f"tiny:{again.number}, unchanged from tiny:{first.number}"
    # as after a run for whose end no client waited: whoever looks makes up for it, and looks no second time
    Client().update_model_version(again.model.id, again.id, remove_tags=[tag.name for tag in again.tags])
    history("tiny", 50)
    assert {tag.name for tag in Client().get_model_version("tiny", again.number).tags} == {*tags, "unchanged"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.labels.label", None)
        history("tiny", 50)


def test_the_data_pipeline_shares_configuration_and_cache(
    first_run: PipelineRunResponse, workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workplace.run_pipeline(data)
    assert run.steps.keys() == {"resolve", "ingest", "validate", "split"}
    assert ran(run) == {"resolve"}
    said = capsys.readouterr().out
    assert "split report" in said
    assert "merged model" not in said
    with pytest.raises(ConfigError, match=r"parameters\.training\.lerning_rate: unknown key"):
        workplace.run_pipeline(data, training={"lerning_rate": 1})
    changed: dict[str, dict[str, Any]] = {"splits": {"seed": 5}}
    assert ran(workplace.run_pipeline(data, **changed)) == {"resolve", "split"}
    assert "split" not in ran(workplace.run(**changed))


def test_rows_are_compared_with_those_of_the_previous_run(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    assert loaded(first_run, "ingest_report").drift is None
    write_rows(workplace.folder / "grown.jsonl", 130)
    run = workplace.run_pipeline(data, data={"sources": [{"files": "{folder}/grown.jsonl"}]})
    drift = loaded(run, "ingest_report").drift
    assert (drift.previous_rows, drift.unchanged, drift.new, drift.gone, drift.changed) == (120, 120, 10, 0, 0)
    assert drift.new_examples[0].endswith("grown.jsonl:121")
    assert ran(workplace.run_pipeline(data)) == {"resolve"}, "the first rows are still in the cache"


def test_an_evaluation_set_is_an_input_of_the_split(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    path = workplace.folder / "evaluation.jsonl"
    path.write_text('{"task_id": "a", "text": "A question", "code": "An answer"}\n', encoding="utf-8")
    changed: dict[str, dict[str, Any]] = {"splits": {"contamination": {"against": [str(path)]}}}
    assert ran(workplace.run_pipeline(data, **changed)) == {"resolve", "split"}
    assert ran(workplace.run_pipeline(data, **changed)) == {"resolve"}
    path.write_text('{"task_id": "b", "text": "Another one", "code": "An answer"}\n', encoding="utf-8")
    run = workplace.run_pipeline(data, **changed)
    assert ran(run) == {"resolve", "split"}
    report = loaded(run, "split_report")
    assert [(one.name, one.items) for one in report.compared_sets][:1] == [(str(path), 1)]


@pytest.mark.slow
def test_a_reference_text_is_an_input_of_the_evaluation(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    path = workplace.folder / "prose.txt"
    changed: dict[str, dict[str, Any]] = {"evaluation": {"reference_text": str(path)}}
    for text in ("Once upon a time. ", "Twice upon a tide. "):
        path.write_text(text * 200, encoding="utf-8")
        run = workplace.run(**changed)
        assert ran(run) == {"resolve", "evaluate", "merge", "promote"}
    decision = loaded(run, "promotion_decision")
    assert "little is forgotten" in [condition.name for condition in decision.conditions]
    assert ran(workplace.run(**changed)) == {"resolve"}


def test_no_row_vanishes(first_run: PipelineRunResponse) -> None:
    report = loaded(first_run, "ingest_report")
    raw, kept = loaded(first_run, "raw_rows"), loaded(first_run, "rows")
    split_rows, examples = loaded(first_run, "split_rows"), loaded(first_run, "examples")
    assert sum(source.records for source in report.sources) == len(raw) + report.blank + report.unreadable == 120
    assert len(raw) == len(kept) + len(loaded(first_run, "quarantine"))
    assert len(kept) == sum(map(len, split_rows.values())) + len(loaded(first_run, "removed_rows"))
    left_out = Counter(loaded(first_run, "left_out_rows")["split"])
    for split in loaded(first_run, "format_report").splits:
        assert len(split_rows[split.name]) == split.sequences + left_out[split.name]
    trained = [row_id for block in loaded(first_run, "blocks")["train"] for row_id in block["row_ids"]]
    assert sorted(trained) == sorted(split_rows["train"]["row_id"])
    (_, records), *parts = loaded(first_run, "data_report").flow()
    assert records == sum(count for _, count in parts) == 120
    page = loaded(first_run, "data_report").html()
    assert all(f"{room}: " in page for room in ("Ingest", "Validate", "Split"))
    assert set(examples["test"]["row_id"]) <= set(split_rows["test"]["row_id"]) <= set(raw["row_id"])


def test_nothing_in_the_store_is_a_pickle(first_run: PipelineRunResponse) -> None:
    files = [path for path in store().rglob("*") if path.is_file()]
    suffixes = {path.suffix for path in files} - {".gguf"}  # of exports that another test made
    assert suffixes == {".arrow", ".json", ".html", ".safetensors", ".jinja", ".md", ".log"}
    assert not [path for path in files if is_pickle(path)]
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as tensors:
                assert list(tensors.keys())


def test_the_pickle_check_finds_pickles(tmp_path: Path) -> None:
    import pickle

    import torch

    (tmp_path / "a").write_bytes(pickle.dumps({"x": [1, 2]}))
    (tmp_path / "b").write_bytes(pickle.dumps("text", protocol=0))
    torch.save({}, tmp_path / "c")
    (tmp_path / "d").write_text('{"x": 1}')
    assert [path.name for path in sorted(tmp_path.iterdir()) if is_pickle(path)] == ["a", "b", "c"]


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle stream, or a zip archive with one inside, as torch.save writes."""
    if zipfile.is_zipfile(path):
        return any(name.endswith(".pkl") for name in zipfile.ZipFile(path).namelist())
    try:
        operations = list(pickletools.genops(path.read_bytes()))
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError):
        return False
    return operations[-1][0].name == "STOP"


def test_a_model_whose_card_alone_differs_shares_its_weights(
    first_run: PipelineRunResponse, workplace: Workplace
) -> None:
    run = workplace.run(evaluation={"max_new_tokens": 12})
    one, two = (Path(each.steps["merge"].outputs["merged_model"][0].uri) / "files" for each in (first_run, run))
    assert (one / "README.md").read_text() != (two / "README.md").read_text()
    assert (one / "model.safetensors").samefile(two / "model.safetensors")


def test_worse_is_not_promoted(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    staged = Client().get_model_version("tiny", "staging").number
    run = workplace.run(promotion=KEPT_BACK)
    assert not loaded(run, "promotion_decision").promoted
    assert Client().get_model_version("tiny", "staging").number == staged


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"data": {"sources": [{"files": "{folder}/empty.jsonl"}]}},
            DataError,
            "has no rows; mend or remove this source",
        ),
        (
            {"data": {"sources": [{"files": "{folder}/broken.parquet"}]}},
            DataError,
            "broken.parquet: not readable as Parquet",
        ),
        ({"base_model": {"folder": "/nowhere"}}, ModelError, "is not a folder"),
        ({"training": {"lora": {"target_modules": ["c_attn"]}}}, ModelError, "has no linear layer c_attn"),
        ({"merging": {"max_logit_difference": 1e-9}}, ModelError, "merged and base"),
    ],
    ids=[
        "empty data set",
        "unreadable Parquet",
        "unknown model",
        "no such projection",
        "bound exceeded",
    ],
)
def test_bad_input_is_one_error_and_leaves_nothing_behind(
    first_run: PipelineRunResponse,
    workplace: Workplace,
    changes: dict[str, dict[str, Any]],
    error: type[Exception],
    message: str,
) -> None:
    (workplace.folder / "empty.jsonl").write_text("")
    (workplace.folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    before = set(store().rglob("*.safetensors"))
    with pytest.raises(error, match=message):
        workplace.run(**changes)
    assert set(store().rglob("*.safetensors")) == before
    assert not list(store().glob(".step-*"))


def test_a_changed_byte_in_a_stored_model_is_found(first_run: PipelineRunResponse) -> None:
    artifact = first_run.steps["merge"].outputs["merged_model"][0]
    config = Path(artifact.uri) / "files" / "generation_config.json"
    original = config.read_bytes()
    try:
        config.write_bytes(original + b" ")
        with pytest.raises(ModelError, match=r"changed: generation_config\.json; restore the stored files"):
            artifact.load()
    finally:
        config.write_bytes(original)
