"""What a user sees of a run that the real ZenML command line triggers, in a project and store of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TOY = """
from zenml import step
from pipelines.strict import strict_pipeline
from steps.errors import DataError
from steps.split.params import SplitParameters

@step
def draw(splits: SplitParameters) -> int:
    if splits.seed == 13:
        raise DataError("rows.jsonl:3: no instruction; add one")
    return splits.seed

@strict_pipeline
def toy(splits: SplitParameters) -> None:
    draw(splits)
"""


@dataclass(frozen=True)
class Project:
    """A folder with a pipeline, in which commands run as a user runs them."""

    folder: Path

    def run(self, *command: str) -> tuple[int, str]:
        """Exit code and everything that was printed."""
        scripts = Path(sys.executable).parent
        environment = {
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}",
            "ZENML_CONFIG_PATH": str(self.folder / "store"),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_LOGGING_COLORS_DISABLED": "true",
        }
        done = subprocess.run(
            [str(scripts / command[0]), *command[1:]],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout

    def run_toy(self, configuration: str) -> tuple[int, list[str]]:
        """Run the pipeline with a configuration; exit code and the lines that were printed."""
        (self.folder / "toy.yaml").write_text(configuration, encoding="utf-8")
        code, output = self.run("zenml", "pipeline", "run", "toy_pipeline.toy", "-c", "toy.yaml")
        assert "Traceback" not in output
        return code, output.strip().splitlines()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after ``zenml init``."""
    made = Project(tmp_path_factory.mktemp("project"))
    (made.folder / "toy_pipeline.py").write_text(TOY, encoding="utf-8")
    assert made.run("zenml", "init")[0] == 0
    return made


def test_misspelt_keys_are_lines_and_nothing_runs(project: Project) -> None:
    code, lines = project.run_toy("modle: {name: toy}\nparameters:\n  splits:\n    sede: 1\n")
    assert code == 1
    assert [line for line in lines if line.startswith("error: ")] == [
        "error: toy.yaml:1: model.name: missing; promote registers the result under it",
        "error: toy.yaml:1: modle: unknown key; did you mean 'model'?",
        "error: toy.yaml:4: parameters.splits.sede: unknown key; did you mean 'seed'? "
        "(valid: validation, test, seed, max_rows, near_duplicate_threshold, contamination)",
    ]
    assert not any("Initiating a new run" in line for line in lines)


def test_a_step_that_fails_over_its_input_ends_with_its_message(project: Project) -> None:
    code, lines = project.run_toy("model: {name: toy}\nparameters: {splits: {seed: 13}}\n")
    assert code == 1
    assert lines[-1] == "error: rows.jsonl:3: no instruction; add one"


def test_a_good_run_shows_its_steps_and_no_adverts(project: Project) -> None:
    code, lines = project.run_toy("model: {name: toy}\nparameters: {splits: {seed: 1}}\n")
    assert code == 0
    assert any(line.startswith("Step draw has started") or "`draw` has started" in line for line in lines)
    assert not any("zenml.io/pro" in line for line in lines)


def test_a_run_without_configuration_is_one_line(project: Project) -> None:
    code, output = project.run("zenml", "pipeline", "run", "toy_pipeline.toy")
    assert code == 1
    assert output.splitlines()[-1] == (
        "error: toy: no configuration gives splits; name a file with -c, such as -c configs/quickstart.yaml"
    )
    assert "Traceback" not in output
