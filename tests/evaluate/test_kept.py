"""Answers on disk: what a killed evaluation leaves is taken up, what decides an answer is in the file's name."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import register_module_forward_pre_hook

from steps.errors import DeviceError
from steps.evaluate.answer import Answer
from steps.evaluate.answer_file import AnswerFile, forget_oldest
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.kept import KeptAnswers, kept_answers
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.report import EvaluationReport
from steps.evaluate.sampling import Draw
from tests.children import exit_code_of
from tests.tiny_run import TinyRun
from tests.train.killed import KillPoint, arm

ASKED = EvaluationParameters(max_prompts=6, max_new_tokens=12, batch_size=2, noise_rows=0)


def evaluated(rows: Dataset, run: TinyRun, kept: KeptAnswers | None) -> EvaluationReport:
    return evaluate_adapter(rows, run.model, run.adapter, run.tokenizer, ASKED, kept)


def files_of(run: TinyRun, folder: Path, **changed: Path) -> KeptAnswers:
    folders = {"model": run.model, "adapter": run.adapter, "tokenizer": run.tokenizer, **changed}
    return kept_answers(str(folder), folders["model"], folders["adapter"], folders["tokenizer"], ASKED.max_new_tokens)


def evaluate_until(point: KillPoint, rows: Path, folders: tuple[Path, Path, Path], kept: KeptAnswers) -> None:
    arm(point)
    evaluate_adapter(load_from_disk(str(rows)), *folders, ASKED, kept)


def count(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def test_a_killed_evaluation_goes_on(tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed between two answers of the tuned model, the last of which a power cut tears."""
    rows = tiny_run.examples["test"]
    rows.save_to_disk(tmp_path / "rows")
    calls = 0

    def called(*_: object) -> None:
        nonlocal calls
        calls += 1

    hook = register_module_forward_pre_hook(called)
    uninterrupted = evaluated(rows, tiny_run, None)
    hook.remove()
    kept = files_of(tiny_run, tmp_path)
    folders = (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer)
    point = KillPoint("forward", int(0.98 * calls))
    assert exit_code_of(evaluate_until, point, tmp_path / "rows", folders, kept) == -signal.SIGKILL
    assert (count(kept.base), count(kept.tuned)) == (6, 4)
    kept.tuned.write_bytes(kept.tuned.read_bytes()[:-5])
    capsys.readouterr()
    assert evaluated(rows, tiny_run, kept).decisive_json() == uninterrupted.decisive_json()
    said = capsys.readouterr().out
    assert "answers, base: 6 of 6 are there from before" in said
    assert "answers, tuned: 3 of 6 are there from before" in said
    assert "-> " in said, "samples are shown"
    kept.forget_tuned()
    assert [path.name for path in (tmp_path / "evaluations").iterdir()] == [kept.base.name]


def test_the_base_answers_are_those_of_any_adapter(tiny_run: TinyRun, tmp_path: Path) -> None:
    """And what decides an answer is in the name of its file."""
    first = files_of(tiny_run, tmp_path)
    adapter, tokenizer = tmp_path / "adapter", tmp_path / "tokenizer"
    shutil.copytree(tiny_run.adapter, adapter)
    shutil.copytree(tiny_run.tokenizer, tokenizer)
    assert files_of(tiny_run, tmp_path, adapter=adapter, tokenizer=tokenizer) == first
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, adapter / "adapter_model.safetensors")
    other = files_of(tiny_run, tmp_path, adapter=adapter)
    assert other.base == first.base
    assert other.tuned != first.tuned
    (tokenizer / "chat_template.jinja").write_text("another")
    names = {first.base, files_of(tiny_run, tmp_path, tokenizer=tokenizer).base}
    folders = (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer)
    names.add(kept_answers(str(tmp_path), *folders, ASKED.max_new_tokens + 1).base)
    assert len(names) == 3


def test_greedy_and_sampled_answers_do_not_mix(tmp_path: Path) -> None:
    draws = [None, Draw(0.8, 0.95, 0), Draw(0.8, 0.95, 1), Draw(0.7, 0.95, 0), Draw(0.8, 0.9, 0)]
    with AnswerFile(tmp_path / "a.jsonl") as file:
        for number, draw in enumerate(draws):
            assert file.get([1, 2], draw) is None
            file.add([1, 2], Answer(str(number), True, 1), draw)
    with AnswerFile(tmp_path / "a.jsonl") as file:
        found = [file.get([1, 2], draw) for draw in draws]
    assert [answer and answer.text for answer in found] == ["0", "1", "2", "3", "4"]


def test_lines_that_are_no_answers_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    answer = Answer("text\u2028\n", True, 3)
    with AnswerFile(path) as file:
        file.add([1, 2], answer)
    whole = path.read_bytes()
    path.write_bytes(whole + b'\n[1]\n{"prompt": "x"}\n\0\0\xff\n' + whole[:20])
    with AnswerFile(path) as file:
        assert list(file.answers.values()) == [answer]
        assert file.get([1]) is None
        file.add([3], answer)
    with AnswerFile(path) as file:
        assert (file.get([1, 2]), file.get([3])) == (answer, answer)


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    with AnswerFile(tmp_path / "a.jsonl") as one, AnswerFile(tmp_path / "a.jsonl") as other:
        for number in range(50):
            one.add([number], Answer("one" * number, True, number))
            other.add([-number - 1], Answer("other" * number, True, number))
    with AnswerFile(tmp_path / "a.jsonl") as file:
        assert len(file.answers) == 100


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "used", "old", "oldest")):
        (tmp_path / f"{name}.jsonl").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"{name}.jsonl", (1e9 - age, 1e9 - age))
    forget_oldest(tmp_path, 250, tmp_path / "oldest.jsonl")
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["new", "oldest"]
    with AnswerFile(tmp_path / "oldest.jsonl"):
        forget_oldest(tmp_path, 150, tmp_path / "other.jsonl")
    assert [path.stem for path in tmp_path.iterdir()] == ["oldest"], "opening it made it the newest"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match=r"file/evaluations: no answer can be kept there .*checkpoints\.folder"):
        AnswerFile(tmp_path / "file" / "evaluations" / "a.jsonl").__enter__()
