"""Tasks of lm-eval: a folder of the user's own, so that nothing comes from the network."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from pydantic import ValidationError

from steps.device import describe_device
from steps.errors import DataError
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.params import EvaluationParameters, EvaluationTask, SandboxParameters
from steps.evaluate.sets import task_folders
from steps.evaluate.tasks import do_task, load_task
from steps.quantize.load import load_quantized
from steps.resolve.benchmarks import lock_benchmarks
from steps.tokenizer import load_tokenizer
from tests.tiny import row
from tests.tiny_run import TinyRun

DOCUMENTS = 12


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of two choices, a group of it, and one that runs code."""
    pytest.importorskip("lm_eval", reason="needs the extra 'lm-eval'")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "tasks"
    place.mkdir()
    data = place / "data.jsonl"
    data.write_text("".join(json.dumps(document(number)) + "\n" for number in range(DOCUMENTS)))
    task: dict[str, Any] = {
        "task": "which_code",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{instruction}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "f1"}],
    }
    (place / "task.yaml").write_text(yaml.safe_dump(task))
    (place / "unsafe.yaml").write_text(yaml.safe_dump({**task, "task": "runs_code", "unsafe_code": True}))
    (place / "group.yaml").write_text(yaml.safe_dump({"group": "all_of_it", "task": ["which_code", "runs_code"]}))
    return place


def document(number: int) -> dict[str, object]:
    """The right function, and one that adds another number."""
    right, wrong = row(number)["completion"], row(number + 8)["completion"]
    choices = [right, wrong] if number % 2 else [wrong, right]
    return {"instruction": row(number)["instruction"], "choices": choices, "label": choices.index(right)}


def test_scores_are_the_models_own_choices(tiny_run: TinyRun, folder: Path) -> None:
    """Against the log-likelihood of each choice, computed alone."""
    device = describe_device("float32")
    model = PeftModel.from_pretrained(load_quantized(tiny_run.model, device), str(tiny_run.adapter)).eval()
    tokenizer = load_tokenizer(tiny_run.tokenizer)
    scores = do_task(model, tokenizer, load_task(EvaluationTask(name="which_code", include=str(folder))), 4)
    assert scores.keys() == {"acc", "acc_norm"}, "F1 is no mean over documents"

    def likelihood(question: str, choice: str) -> float:
        start, ids = tokenizer(question)["input_ids"], tokenizer(f"{question} {choice}")["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logits[at - 1, ids[at]]) for at in range(len(start), len(ids)))

    expected = []
    for number in range(DOCUMENTS):
        one: dict[str, Any] = document(number)
        first, second = (likelihood(one["instruction"], choice) for choice in one["choices"])
        expected.append(float((second > first) == bool(one["label"])))
    assert scores["acc"].values == expected


def test_both_models_do_the_task(tiny_run: TinyRun, folder: Path) -> None:
    tasks = (EvaluationTask(name="which_code", include=str(folder), limit=8, num_fewshot=1),)
    asked = EvaluationParameters(
        max_prompts=2, max_new_tokens=2, tasks=tasks, sandbox=SandboxParameters(accept_risk=True)
    )
    lock = lock_benchmarks((), None, task_folders(asked))
    folders = (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer)
    report = evaluate_adapter(tiny_run.examples["test"], *folders, asked, benchmarks=lock)
    (task,) = report.tasks
    assert (task.name, task.documents) == ("which_code", 8)
    accuracy = task.figures[0]
    assert (accuracy.name, accuracy.better) == ("acc", "higher")
    assert accuracy.low <= accuracy.difference <= accuracy.high
    assert accuracy.difference == pytest.approx(accuracy.tuned - accuracy.base)
    assert report.metadata()["base_which_code_acc"] == pytest.approx(accuracy.base, abs=1e-4)
    assert "Task which_code: 8 documents" in report.html()


@pytest.mark.parametrize("name", ["runs_code", "all_of_it"])
def test_a_task_that_runs_code_is_refused(folder: Path, name: str) -> None:
    message = rf"{name} runs the code that the model writes.*unsafe_code of runs_code.*parameters\.evaluation\.sets"
    with pytest.raises(DataError, match=message):
        lock_benchmarks((), None, {name: str(folder)})


def test_lm_evals_own_code_tasks_are_refused(folder: Path) -> None:
    for name in ("humaneval", "mbpp"):
        with pytest.raises(DataError, match=f"{name} runs the code that the model writes"):
            lock_benchmarks((), None, {name: None})


def test_a_changed_file_changes_the_lock(folder: Path) -> None:
    first = lock_benchmarks((), None, {"which_code": str(folder)})
    assert first == lock_benchmarks((), None, {"which_code": str(folder)})
    (folder / "data.jsonl").write_text(json.dumps(document(1)))
    assert lock_benchmarks((), None, {"which_code": str(folder)}) != first


def test_mistakes_are_one_clear_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"evaluation\.tasks: lm-eval knows no task 'none'"):
        lock_benchmarks((), None, {"none": str(folder)})
    with pytest.raises(DataError, match=r"include names no folder 'no/where'"):
        lock_benchmarks((), None, {"which_code": "no/where"})
    (folder / "data.jsonl").unlink()
    with pytest.raises(DataError, match=r"which_code cannot be loaded: .*mend its data set"):
        load_task(EvaluationTask(name="which_code", include=str(folder)))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(DataError, match=r'lm-eval is not installed; run: pip install -e "\.\[lm-eval\]"'):
        lock_benchmarks((), None, {"arc_easy": None})
    with pytest.raises(DataError, match="lm-eval is not installed"):
        load_task(EvaluationTask(name="arc_easy"))


def test_names_differ_from_those_of_sets() -> None:
    with pytest.raises(ValidationError, match="sets and tasks have two of the name 'a'"):
        EvaluationParameters.model_validate({"sets": [{"name": "a", "file": "x"}], "tasks": [{"name": "a"}]})
