"""Several processes measure what one measures, share what is kept, and end together."""

import json
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steps.device import describe_device
from steps.distributed.params import DistributedParameters
from steps.errors import EvaluationError
from steps.evaluate.ask import Questions, other_batch_size
from steps.evaluate.distributed.deal import deal, dealt_batches, gathered
from steps.evaluate.distributed.launch import processes_of
from steps.evaluate.distributed.task import SharedEvaluation, read_outcome, write_outcome, write_task
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.examine import Examination, Models, Outcome, examine
from steps.evaluate.forgetting import windows_of
from steps.evaluate.kept import KeptAnswers
from steps.evaluate.losses import BATCH_TOKENS, RowLoss, batches_of
from steps.evaluate.params import EvaluationParameters, EvaluationTask, SandboxParameters
from steps.evaluate.production import Production
from steps.evaluate.report import EvaluationReport
from steps.evaluate.sandbox.verdict import Verdict
from steps.rows import list_lengths
from steps.tokenizer import load_tokenizer
from tests.tiny_run import TinyRun
from tests.workers import when, workers

WORKER = "steps.evaluate.distributed.worker"

PASSED, FAILED = Verdict("passed", "", True, True), Verdict("exception", "NameError", True, True)

SHARED = EvaluationParameters.model_validate(
    {"batch_size": 4, "max_new_tokens": 4, "noise_rows": 5, "sampling": {"answers": 3, "pass_at": [1]}}
)


@given(
    st.lists(st.integers(2, 60), max_size=40), st.integers(1, 5), st.integers(1, 200), st.integers(1, 6), st.booleans()
)
def test_each_process_makes_the_batches_of_one_again(
    lengths: list[int], size: int, tokens: int, processes: int, backwards: bool
) -> None:
    order = lengths[::-1] if backwards else lengths
    whole = list(batches_of(order, size, tokens))
    for number, own in enumerate(dealt_batches(order, size, processes, tokens)):
        again = batches_of([order[row] for row in own], size, tokens)
        assert [[own[row] for row in batch] for batch in again] == whole[number::processes]


@pytest.fixture(scope="module")
def asked(tiny_run: TinyRun) -> Examination:
    """Something of every kind; three of the first set's prompts have tests that count, the other has one row."""
    rows, prose = tiny_run.examples["test"], Path("LICENSE").read_text(encoding="utf-8")
    verdicts = [PASSED if row in (0, 1, 4) else FAILED if row == 2 else None for row in range(7)]
    first = Questions("test", rows, rows.select(range(7)), verdicts)
    return Examination(
        questions=[first, Questions("few", rows.select([3]), rows.select([3]), None)],
        validation=tiny_run.examples["validation"],
        reference=windows_of(prose, load_tokenizer(tiny_run.tokenizer), 64, 9),
        tasks=[],
        again=first,
        production=first,
    )


@pytest.fixture(scope="module")
def models(tiny_run: TinyRun) -> Models:
    folders = (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer)
    return Models(*folders, production=folders)


@pytest.fixture(scope="module")
def whole(models: Models, asked: Examination) -> Outcome:
    """By one process."""
    return examine(models, asked, SHARED, None, describe_device("float32"))


@pytest.mark.parametrize("processes", [2, 3])
def test_the_shares_together_are_what_one_process_makes(
    models: Models, asked: Examination, whole: Outcome, tmp_path: Path, processes: int
) -> None:
    """By way of the folder; losses to the last bit."""
    shares = deal(asked, SHARED, processes)
    write_task(tmp_path, models, asked, SHARED, None, shares)
    task, device = SharedEvaluation.read(tmp_path), describe_device("float32")
    for number in range(processes):
        own = task.asked(tmp_path, number)
        write_outcome(tmp_path, number, examine(task.models, own, task.evaluation, task.kept, device))
    assert gathered([read_outcome(tmp_path, number) for number in range(processes)], shares) == whole
    assert len(whole.base.made[0].sampled) == 3
    assert whole.base.again is not None
    assert whole.production == whole.tuned.made[0]


def test_rows_asked_again_keep_the_batches_of_one(asked: Examination) -> None:
    """Those of ``ask_again``: backwards, and of half the size."""
    lengths = list_lengths(asked.questions[0].measured, "prompt_ids", "completion_ids").tolist()[:5]

    def batches(rows: list[int]) -> list[list[int]]:
        found = batches_of([lengths[row] for row in rows[::-1]], other_batch_size(SHARED.batch_size), BATCH_TOKENS // 2)
        return [[rows[::-1][place] for place in batch] for batch in found]

    shares = deal(asked, SHARED, 2)
    own = [batches(share.again.measured) for share in shares if share.again]
    whole = batches(list(range(5)))
    assert own == [whole[::2], whole[1::2]]
    assert len(whole) == 3


def test_tasks_and_sampled_prompts_are_dealt_evenly(asked: Examination) -> None:
    tasks = [EvaluationTask(name=name) for name in "abcde"]
    shares = deal(replace(asked, tasks=tasks), SHARED, 2)
    assert [share.tasks for share in shares] == [[0, 2, 4], [1, 3]]
    assert sorted(len(share.sets[0].sampled) for share in shares) == [1, 2]
    assert sorted(len(share.sets[0].answered) for share in shares) == [3, 4]
    alone = deal(asked, SHARED.model_copy(update={"sampling": None}), 2)
    assert [share.sets[0].sampled for share in alone] == [[], []]


def test_numbers_that_are_not_finite_go_through_the_folder(whole: Outcome, tmp_path: Path) -> None:
    odd = replace(whole, base=replace(whole.base, validation=[RowLoss(float("inf"), 3), RowLoss(0.1 + 0.2, 1)]))
    write_outcome(tmp_path, 0, odd)
    assert read_outcome(tmp_path, 0) == odd


@pytest.mark.parametrize(
    ("processes", "machines", "cards", "expected"),
    [("auto", 1, 0, 1), ("auto", 1, 8, 8), ("auto", 2, 8, 8), (2, 1, 0, 2), (4, 2, 8, 2), (8, 1, 1, 1), (1, 1, 8, 1)],
)
def test_a_trainings_number_as_far_as_there_are_gpus(
    monkeypatch: pytest.MonkeyPatch, processes: int | str, machines: int, cards: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)  # no GPU here
    distributed = DistributedParameters.model_validate({"processes": processes})
    assert processes_of(distributed, machines) == expected


def evaluated(
    run: TinyRun, prompts: int, kept: KeptAnswers | None = None, processes: int = 1, tokens: int = 12
) -> EvaluationReport:
    asked = EvaluationParameters(
        max_prompts=prompts, max_new_tokens=tokens, batch_size=2, sandbox=SandboxParameters(execute="never")
    )
    folders = (run.model, run.adapter, run.tokenizer)
    production = Production(3, folders)
    return evaluate_adapter(
        run.examples["test"],
        *folders,
        asked,
        kept,
        validation=run.examples["validation"],
        production=production,
        processes=processes,
    )


def keys(path: Path) -> list[str]:
    """Of the answers that a file keeps, in the order in which they came."""
    return [json.loads(line)["prompt"] for line in path.read_bytes().splitlines()]


def test_two_processes_write_the_report_of_one(
    tiny_run: TinyRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They take up the answers that one alone has left."""
    expected = evaluated(tiny_run, 6)
    kept = KeptAnswers(*(tmp_path / f"{side}.jsonl" for side in ("base", "tuned", "production")))
    evaluated(tiny_run, 4, kept)
    before = keys(kept.base)
    capfd.readouterr()
    assert evaluated(tiny_run, 6, kept, processes=2).decisive_json() == expected.decisive_json()
    assert keys(kept.base)[: len(before)] == before
    assert [len(set(keys(path))) for path in (kept.base, kept.tuned)] == [6, 6]
    assert [len(keys(path)) for path in (kept.base, kept.tuned)] == [6, 6], "none is generated again"
    said = capfd.readouterr().out
    assert "evaluate: shared by 2 processes" in said
    assert said.count("answers, base: ") == 1, "the other process is silent"
    assert " -> " in said, "samples are shown"


def test_a_killed_process_ends_all_and_one_alone_goes_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    kept = KeptAnswers(*(tmp_path / f"{side}.jsonl" for side in ("base", "tuned", "production")))
    started: list[psutil.Process] = []

    def kill() -> None:
        started.extend(workers(WORKER))
        started[1].kill()

    message = r"process 1 of 2 \(from 0\) failed first.*killed by signal 9.*what was answered is kept, so run again"
    some = when(lambda: kept.base.is_file() and len(kept.base.read_bytes().splitlines()) > 1, kill)
    with some, pytest.raises(EvaluationError, match=message):
        evaluated(tiny_run, 6, kept, processes=2, tokens=40)
    assert len(started) == 2
    assert not [process for process in started if process.is_running()]
    assert keys(kept.base)
    report = evaluated(tiny_run, 6, kept, tokens=40)
    assert [len(keys(path)) for path in (kept.base, kept.tuned)] == [6, 6], "none is generated again"
    assert report.decisive_json() == evaluated(tiny_run, 6, tokens=40).decisive_json()
