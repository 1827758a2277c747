"""The merged model of a real run: a complete directory that says where it comes from."""

import json
from pathlib import Path

from huggingface_hub import ModelCard
from zenml.client import Client
from zenml.models import PipelineRunResponse

from pipelines.finetune import finetune
from tests.end_to_end.conftest import Workplace, loaded, ran

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
    "provenance.json",
}


def test_the_directory_is_complete(first_run: PipelineRunResponse) -> None:
    folder: Path = loaded(first_run, "merged_model").path
    assert {path.name for path in folder.rglob("*")} == FILES


def test_the_card_has_the_figures_of_the_run(first_run: PipelineRunResponse) -> None:
    card = ModelCard.load(loaded(first_run, "merged_model").path / "README.md")
    evaluation, merge = loaded(first_run, "evaluation_report"), loaded(first_run, "merge_report")
    measured = {one.metric_type: one.metric_value for one in card.data["eval_results"]}
    assert measured.keys() == {figure.name.replace(" ", "_") for figure in evaluation.figures}
    for figure in evaluation.figures:
        assert measured[figure.name.replace(" ", "_")] == round(figure.tuned, 6)
        assert f"| {figure.show(figure.base)} | {figure.show(figure.tuned)} |" in card.text
    assert f"| {merge.merged_loss:.5f} |" in card.text
    assert evaluation.samples[0].tuned_answer.rstrip() in card.text


def test_its_lineage_is_the_run_that_made_it(first_run: PipelineRunResponse) -> None:
    made = json.loads((loaded(first_run, "merged_model").path / "provenance.json").read_text())["made"]
    assert made["run"]["id"] == str(first_run.id)
    assert made["run"]["name"] == first_run.name
    assert made["run"]["step_id"] == str(first_run.steps["merge"].id)
    assert made["run"]["model"] == "tiny"
    assert made["environment"]["libraries"] == loaded(first_run, "environment").libraries
    assert [one["files"] for one in made["sources"]] == [one.files for one in loaded(first_run, "data_lock").sources]


def test_merged_again_it_is_the_same_model_but_for_its_run(
    first_run: PipelineRunResponse, workplace: Workplace
) -> None:
    config = workplace.config()
    config.write_text(config.read_text() + "steps: {merge: {enable_cache: false}}\n")
    run = finetune.with_options(config_path=str(config))()
    assert run is not None
    again = Client().get_pipeline_run(run.id)
    assert ran(again) == {"resolve", "merge"}, "what depends on the model has no reason to run"
    one, other = (which.steps["merge"].outputs["merged_model"][0] for which in (first_run, again))
    assert one.id != other.id
    assert one.content_hash == other.content_hash
    folders = [Path(which.uri) / "files" for which in (one, other)]
    differing = {name for name in FILES if len({(folder / name).read_bytes() for folder in folders}) == 2}
    assert differing == {"provenance.json"}
