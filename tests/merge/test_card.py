"""The model card: figures of its reports, front matter that the hub reads, foreign text that stays text."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData

from steps.evaluate.report import EvaluationReport, SetReport
from steps.markdown import code, fenced
from steps.merge.card import Origins, write_card
from steps.merge.report import MergeReport
from tests.evaluations import evaluation_report, figure, sample
from tests.tiny_run import TinyRun

ANSWER = "Use this:\n```python\nreturn 1\n```\n````\n| cell |\n````\n# Not a heading"


def evaluation(answer: str = ANSWER) -> EvaluationReport:
    """A report with a share, a figure that is infinite, a set of problems and one answer."""
    figures = [figure("loss", 2.5, 1.25, -1.375, -1.125), figure("only code", 0.25, 0.75, 0.375, 0.625)]
    perplexity = figure("perplexity", 5.0, float("inf"), 0.0, float("inf"), unit="")
    return evaluation_report(
        figures,
        [sample("a", "Don't add `1`.", tuned_answer=answer)],
        loss_rows=12,
        loss_tokens=345,
        answers=10,
        confidence=0.9,
        max_new_tokens=48,
        sets=(SetReport(name="HumanEval", figures=[perplexity], samples=[], loss_tokens=77),),
    )


@pytest.fixture(scope="module")
def described(
    tiny_run: TinyRun, tiny_merge: tuple[Path, MergeReport], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Origins]:
    """A copy of the merged model, and what its card is made from."""
    (merged, report), run = tiny_merge, tiny_run
    folder = shutil.copytree(merged, tmp_path_factory.mktemp("described") / "merged")
    learned = (run.ingested, run.formatted, run.report, evaluation(), report)
    return folder, Origins(run.lock, run.adapter, run.data, *learned)


def card(described: tuple[Path, Origins], origins: Origins) -> ModelCard:
    write_card(described[0], origins)
    found: ModelCard = ModelCard.load(described[0] / "README.md")  # refuses front matter that it cannot read
    return found


def test_figures_are_those_of_the_reports(described: tuple[Path, Origins], tiny_run: TinyRun) -> None:
    text = card(described, described[1]).text
    assert "| loss (nats/token) | 2.500 | 1.250 | -1.250 | -1.375 to -1.125 | better |" in text
    assert "| only code | 25.0% | 75.0% | +50.0% | +37.5% to +62.5% | better |" in text
    assert "loss on 12 held-out rows (345 tokens), the rest on 10 greedy answers of at most 48 tokens" in text
    assert "Intervals are 90% of the difference" in text
    assert f"{described[1].merge.adapter_loss:.5f} |" in text
    assert f"{tiny_run.report.tokens:,} (" in text
    assert "r 64, alpha 16, dropout 0.05" in text
    assert "nf4, double quantisation" in text
    (source,), (lock,) = tiny_run.ingested.sources, tiny_run.data.sources
    assert f"{source.rows} | unknown {source.rows} |" in text
    assert f"SHA-256 `{next(iter(lock.files.values()))}`" in text
    train = next(split for split in tiny_run.formatted.splits if split.name == "train")
    assert f"{train.sequences} train" in text
    assert "Generated code was not run." in text


def test_front_matter_is_what_the_hub_reads(described: tuple[Path, Origins]) -> None:
    data = card(described, described[1]).data
    assert isinstance(data, ModelCardData)
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert data.base_model is data.datasets is data.license is None, "nothing that is not known"
    results = data.eval_results or []
    assert [(one.metric_type, one.metric_value) for one in results] == [("loss", 1.25), ("only_code", 0.75)]


def test_a_hub_base_and_hub_rows_are_named_with_their_revisions(described: tuple[Path, Origins]) -> None:
    known = described[1]
    (source,), (lock,) = known.ingested.sources, known.data.sources
    rows = source.model_copy(update={"name": "owner/rows", "kind": "hub", "state": "c0ffee", "licenses": {"MIT": 80}})
    changed = replace(
        known,
        base=known.base.model_copy(update={"name": "owner/base", "hub": "owner/base", "commit": "abc123"}),
        ingested=known.ingested.model_copy(update={"sources": [rows]}),
        data=known.data.model_copy(update={"sources": [lock.model_copy(update={"files": {}, "commit": "c0ffee"})]}),
    )
    found = card(described, changed)
    assert (found.data["base_model"], found.data["datasets"]) == ("owner/base", ["owner/rows"])
    result = found.data["eval_results"][0]
    assert (result.dataset_type, result.dataset_revision) == ("owner/rows", "c0ffee")
    assert "https://huggingface.co/owner/base, revision `abc123`" in found.text
    assert "| `owner/rows` | `c0ffee` | 80 | `MIT` 80 |" in found.text


def test_sources_of_many_files_are_short(described: tuple[Path, Origins]) -> None:
    known = described[1]
    (source,), (lock,) = known.ingested.sources, known.data.sources
    many = {f"{number}.py": "f" * 64 for number in range(30)}
    for changes, expected in (
        ({}, "| `rows.jsonl` | 30 files, each by its SHA-256 in `provenance.json` | 80 |"),
        ({"name": "toolz", "kind": "package", "state": "1.2.0"}, "| `toolz` | `1.2.0` | 80 |"),
    ):
        changed = replace(
            known,
            ingested=known.ingested.model_copy(update={"sources": [source.model_copy(update=changes)]}),
            data=known.data.model_copy(update={"sources": [lock.model_copy(update={"files": many})]}),
        )
        text = card(described, changed).text
        assert expected in text
        assert str(Path(source.name).parent) not in text, "where it lay is nobody's business"


def test_an_answer_with_fences_stays_whole(described: tuple[Path, Origins]) -> None:
    text = card(described, described[1]).text
    assert f"Answer:\n\n`````\n{ANSWER}\n`````\n" in text
    assert "Prompt:\n\n```\nDon't add `1`.\n```" in text


def test_the_same_work_gives_the_same_card(described: tuple[Path, Origins]) -> None:
    known = described[1]
    write_card(described[0], known)
    first = (described[0] / "README.md").read_bytes()
    elsewhere = replace(
        known,
        evaluation=known.evaluation.model_copy(update={"seconds": 9.0, "device": "another"}),
        merge=known.merge.model_copy(update={"seconds": 9.0, "device": "another", "resumed_shards": 1}),
        training=known.training.model_copy(update={"device": "another", "resumed_from": [3], "preflight_seconds": 9.0}),
    )
    assert elsewhere.training.decisive_json() == known.training.decisive_json()
    write_card(described[0], elsewhere)
    assert (described[0] / "README.md").read_bytes() == first


@pytest.mark.parametrize("text", ["plain", "``", "a ```` b", "`x", "x`\n|y|"])
def test_code_cannot_be_left(text: str) -> None:
    fence = fenced(text).split("\n", 1)[0]
    assert fence.strip("`") == ""
    assert fence not in text
    inline = code(text)
    mark = inline[: len(inline) - len(inline.lstrip("`"))]
    assert mark not in inline[len(mark) : -len(mark)].split()
    assert "\n" not in inline
    assert "|" not in inline.replace("\\|", "")


def test_the_merge_is_told_as_it_was_made(described: tuple[Path, Origins]) -> None:
    known = described[1]
    assert "Merged into the base's own weights: the adapter changed 14 tensors" in card(described, known).text
    report = known.merge.model_copy(update={"target": "dequantized", "dequantized_weights": 14})
    text = card(described, replace(known, merge=report)).text
    assert "Merged into the base's 14 quantised weights, dequantised: the adapter" in text
    assert f"| KL(trained to merged), nats/token | {report.written.kl_divergence:.5f} | 0.35 |" in text
    assert f"| loss as trained, nats/token | {report.written.expected_loss:.5f} |" in text
