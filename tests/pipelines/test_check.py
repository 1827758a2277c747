"""``qlora check``: every check is tried, the exit code tells, and each value is shown with its origin."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from packaging.requirements import Requirement
from safetensors.numpy import save_file

from pipelines.cli import main
from pipelines.config import CheckedConfig
from pipelines.finetune import finetune
from pipelines.preflight import Outcome, preflight, unmet
from tests.tiny import write_tokenizer

CONFIG = """\
model: {name: coder}
parameters:
  data:
    sources:
      - files: rows.jsonl
  base_model:
    folder: base
  training:
    lora: {r: 8}
    early_stopping: null
"""

BY_MACHINE = ("packages", "sandbox")
"""Checks whose outcome depends on what is installed, and on what the kernel allows."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a base model of one tensor, and a configuration that names both."""
    (tmp_path / "base").mkdir()
    save_file({"weight": np.zeros(250, dtype=np.float16)}, str(tmp_path / "base" / "model.safetensors"))
    (tmp_path / "base" / "config.json").write_text("{}", encoding="utf-8")
    write_tokenizer(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "completion": "b"}\n', encoding="utf-8")
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*changes: tuple[str, str]) -> Result:
    """Run the command on the configuration after these replacements."""
    path = Path("run.yaml")
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return CliRunner().invoke(main, ["check", "-c", "run.yaml"])


def outcomes(config: CheckedConfig) -> dict[str, Outcome]:
    """The outcome of each check by its name."""
    return {outcome.name: outcome for outcome in preflight(config)}


def test_a_good_configuration_passes_each_check(project: Path) -> None:
    found = outcomes(finetune.check(Path("run.yaml")))
    assert list(found) == ["config", "packages", "device", "data", "base model", "prompt", "disk space", "sandbox"]
    assert [name for name, outcome in found.items() if not outcome.passed and name not in BY_MACHINE] == []
    assert "4 of" in found["config"].message
    assert "rows.jsonl" in found["data"].message
    assert found["prompt"].message == "template notebook; an answer ends with </s>, padding is <pad>"


def test_the_checks_are_numbered_and_the_values_have_origins(project: Path) -> None:
    lines = [" ".join(line.split()) for line in check().output.splitlines()]
    assert lines[0].startswith("1/8 config ok run.yaml: 4 of")
    assert "training.lora.r: 8 # run.yaml:9" in lines
    assert "training.early_stopping: null # run.yaml:10" in lines
    assert "training.lora.dropout: 0.05 # default" in lines
    assert 'data.sources[0].files: "rows.jsonl" # run.yaml:5' in lines


def test_every_check_is_tried_although_others_fail(project: Path) -> None:
    result = check(("r: 8", "r: 0, rr: 1"), ("rows.jsonl", "none.jsonl"), ("folder: base", "folder: nowhere"))
    lines = result.output.splitlines()
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "1/8 config      failed: run.yaml:9: parameters.training.lora.r: 0 is impossible; " in lines[0]
    assert "run.yaml:9: parameters.training.lora.rr: unknown key; did you mean 'r'?" in lines[1]
    failed = [line.split("  ")[0][4:] for line in lines if line[1:3] == "/8" and "failed: " in line]
    assert {"config", "data", "base model", "prompt", "disk space"} <= set(failed)
    assert "none.jsonl" in result.output
    assert "nowhere" in result.output


def test_too_little_space_is_said_in_numbers(project: Path) -> None:
    size = shutil.disk_usage(project).free
    with (project / "base" / "model.safetensors").open("r+b") as weights:
        weights.truncate(size)  # a sparse file, which takes no space; a run needs half as much again
    config = finetune.check(Path("run.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steps.resolve.base_model.sha256_of", lambda path: "0" * 64)  # hashing it would take hours
        patch.setattr("steps.resolve.base_model.hashes", lambda folder: {"model.safetensors": "0" * 64})
        found = outcomes(config)
    assert not found["disk space"].passed
    assert f"needs {1.5 * size / 1e9:.2f} GB" in found["disk space"].message


def test_the_check_says_how_generated_code_would_run(project: Path) -> None:
    off = check(("early_stopping: null", "early_stopping: null\n  evaluation: {sandbox: {execute: never}}"))
    assert "8/8 sandbox     ok      generated code will not run" in off.output
    risky = check(("{execute: never}", "{accept_risk: true}"))
    assert "8/8 sandbox     ok      generated code runs " in risky.output


def test_a_file_that_is_not_there_is_one_line(project: Path) -> None:
    result = CliRunner().invoke(main, ["check", "-c", "other.yaml"])
    assert result.exit_code == 1
    assert result.output.startswith("error: other.yaml: no such file; ")


def test_a_package_that_the_configuration_names_must_be_there(project: Path) -> None:
    result = check(("files: rows.jsonl", "package: nosuchpackage"))
    assert result.exit_code == 1
    assert "nosuchpackage" in result.output


def test_an_installed_version_is_compared_with_the_requirement() -> None:
    assert unmet(Requirement("click>=1")) == ""
    assert unmet(Requirement("click>=1000")).startswith("click>=1000 is needed and ")
    assert unmet(Requirement("nosuchpackage>=1")) == "nosuchpackage>=1 is not installed"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.jsonl", "", "data: parameters.data.sources[0]: 'rows.jsonl' has no readable row; mend"),
        (
            "rows.csv",
            "instruction,completion\n",
            "data: parameters.data.sources[0]: 'rows.csv' has no readable row; mend",
        ),
        ("rows.jsonl", "{}\n", "'rows.jsonl' has no readable row (rows.jsonl:1: no instruction"),
        ("rows.jsonl", '{"ask": "a", "code": "b"}\n', "data: rows.jsonl: no column for the instruction (tried "),
    ],
)
def test_data_without_a_row_or_a_column_fails_before_the_run(project: Path, name: str, text: str, said: str) -> None:
    Path(name).write_text(text, encoding="utf-8")
    result = check(("rows.jsonl", name))
    assert result.exit_code == 1
    assert said in result.stderr


def test_what_failed_is_said_again_at_the_end(project: Path) -> None:
    lines = check(("rows.jsonl", "none.jsonl"), ("folder: base", "folder: owner/name")).stderr.splitlines()
    assert [line.split(": ", 2)[:2] for line in lines[1:]] == [["error", "data"], ["error", "base model"]]
    assert "8 checks failed" in lines[0]
    assert "owner/name is not a folder; " in lines[-1]
    assert "base_model.hub" in lines[-1]
