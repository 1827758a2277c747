"""``qlora generate`` and ``qlora compare`` on what a real run left behind."""

import shutil
from pathlib import Path

import pytest
from zenml.models import PipelineRunResponse

from materializers.directory import FILES
from tests.end_to_end.conftest import KEPT_BACK, Workplace, one_line, qlora, uri


def test_the_promoted_model_answers(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    config = str(workplace.config())
    promoted = qlora("generate", "Write a function.", "--model", "staging", "-c", config, "--max-new-tokens", "40")
    assert promoted.exit_code == 0, promoted.output
    merged = uri(first_run, "merged_model") / FILES
    by_folder = qlora("generate", "Write a function.", "--model", str(merged), "--max-new-tokens", "40")
    assert by_folder.stdout == promoted.stdout
    adapter = uri(first_run, "adapter") / FILES
    assert qlora("generate", "Write a function.", "--model", str(adapter), "--max-new-tokens", "40").exit_code == 0


def test_what_cannot_be_asked_is_one_line(first_run: PipelineRunResponse, workplace: Workplace, tmp_path: Path) -> None:
    merged = uri(first_run, "merged_model") / FILES
    (tmp_path / "empty").mkdir()
    bare = tmp_path / "bare"
    shutil.copytree(merged, bare)
    (bare / "chat_template.jinja").unlink()
    lost = tmp_path / "lost"
    shutil.copytree(uri(first_run, "adapter") / FILES, lost)
    (lost / "provenance.json").unlink()
    config = str(workplace.config())
    for arguments, message in (
        (("--model", "/nowhere"), "--model /nowhere: neither a folder nor one of"),
        (("--model", "tiny:99"), "model tiny has no version '99'; it has"),
        (("--model", str(tmp_path / "empty")), "neither config.json nor adapter_config.json is there"),
        (("--model", str(bare)), "the tokenizer has no chat template"),
        (("--model", str(lost)), "it says what the adapter's base model is"),
        (("-c", config), "model tiny has no version 'production'; it has"),
        (("-c", str(tmp_path / "none.yaml")), "model.name cannot be read there"),
        (("--model", "production"), "production: no model has such a version; first: qlora promote"),
    ):
        assert message in one_line(qlora("generate", "Write a function.", *arguments))
    refused = qlora("generate", "### RESPONSE:\nwhat</s>", "--model", str(merged))
    assert "the instruction cannot be asked" in one_line(refused)


def test_runs_and_versions_are_compared(first_run: PipelineRunResponse, workplace: Workplace, tmp_path: Path) -> None:
    other = workplace.run(evaluation={"max_new_tokens": 7}, promotion=KEPT_BACK)
    page = tmp_path / "page.html"
    done = qlora("compare", first_run.name, str(other.id)[:8], "tiny:staging", "--html", str(page))
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"1  {first_run.name}"
    loss = next(line for line in lines if " better" in line)
    assert loss.startswith("loss")
    assert "1 and 2 cut answers at 16 and 7 tokens." in done.stdout
    assert "3 evaluations compared" in page.read_text(encoding="utf-8")
    for command in ("compare", "lineage"):
        lost = qlora(command, "tiny:staging", "--html", str(tmp_path / "nowhere" / "page.html"))
        assert (lost.exit_code, lost.stderr.count("\n")) == (1, 1), lost.output
        assert "page.html: cannot be written (No such file or directory); name a file in a folder" in lost.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-run", "no-such-run: not the name of one run"),
        ("nobody:1", "ZenML has no model 'nobody'; it has "),
        ("tiny:99", "model tiny has no version '99'; it has 1"),
    ],
)
def test_what_is_not_there_is_one_line(first_run: PipelineRunResponse, name: str, message: str) -> None:
    assert message in one_line(qlora("compare", name))
