"""``qlora preview``: rows as they would be trained."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from tests.tiny import row, write_rows, write_tokenizer

CONFIG = """\
model: {name: coder}
parameters:
  data:
    sources: [{files: rows.jsonl}]
    max_bad_share: 0.5
  base_model: {folder: base}
  prompt: {template: alpaca, max_length: 150}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows, a folder that passes for a base model as far as its tokenizer, and a configuration."""
    base = tmp_path / "base"
    base.mkdir()
    write_tokenizer(base)
    (base / "config.json").write_text("{}", encoding="utf-8")
    (base / "model.safetensors").write_bytes(b"")
    write_rows(tmp_path / "rows.jsonl", 5)
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rows_are_shown_as_text_and_as_token_ids(project: Path) -> None:
    result = CliRunner().invoke(main, ["preview", "-c", "run.yaml", "-n", "2"])
    assert result.exit_code == 0, result.output
    assert result.output.count("row ") == 2
    assert "row 2, rows.jsonl:2: " in result.output
    given, trained, _ = result.output.split("--- trained, ")
    assert f"### Instruction:\n{row(0)['instruction']}\n\n### Response:\n\n" in given
    assert f"{row(0)['completion']}</s>" in trained
    assert trained.split("\n\n")[0].endswith(" 2"), "the last trained token is the end token's id"
    assert "template alpaca; an answer ends with </s> (2), padding is <pad>" in result.output


def test_a_row_in_several_pieces_keeps_its_number(project: Path) -> None:
    long = {"instruction": "Print.", "completion": "x = 1\n" * 50}
    Path("rows.jsonl").write_text(json.dumps(long), encoding="utf-8")
    text = CONFIG.replace("max_length: 150", "max_length: 30, too_long: split, loss_on: all")
    Path("run.yaml").write_text(text, encoding="utf-8")
    output = CliRunner().invoke(main, ["preview", "-c", "run.yaml", "-n", "1"]).output
    assert output.count("row 1, rows.jsonl:1: ") > 1
    assert "row 2" not in output


def test_what_cannot_be_shown_is_one_line(project: Path) -> None:
    Path("rows.jsonl").write_text("{}\n" + json.dumps(row(1)) + "\n", encoding="utf-8")
    shown = CliRunner().invoke(main, ["preview", "-c", "run.yaml", "-n", "1"])
    assert "row 1, rows.jsonl:2: " in shown.output, "unreadable rows are passed over"
    Path("rows.jsonl").write_text("{}\n", encoding="utf-8")
    empty = CliRunner().invoke(main, ["preview", "-c", "run.yaml"])
    assert (empty.exit_code, empty.stderr.count("\n")) == (1, 1)
    assert "parameters.data.sources[0]: no source has a readable row" in empty.stderr
    Path("run.yaml").write_text(CONFIG.replace("max_length: 150", "max_length: 16"), encoding="utf-8")
    write_rows(project / "rows.jsonl", 2)
    long = CliRunner().invoke(main, ["preview", "-c", "run.yaml"])
    assert "parameters.prompt: none of the first 2 rows would be trained" in long.stderr
