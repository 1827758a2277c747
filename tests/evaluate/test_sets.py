"""Evaluation sets: problems become rows of the run's own template, tests come along, figures stand apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from steps.errors import DataError
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.params import EvaluationParameters, EvaluationSet, SandboxParameters
from steps.evaluate.sets import problem_of, read_set, set_sources
from steps.resolve.benchmarks import lock_benchmarks
from steps.resolve.evaluation_sets import BENCHMARKS_KEY, lock_evaluation_sets
from steps.tokenizer import load_tokenizer
from tests.tiny_run import TinyRun

HUMAN_EVAL: dict[str, Any] = {
    "task_id": "HumanEval/0",
    "prompt": '\n\ndef add_3(value):\n    """Add 3.\n    """\n',
    "entry_point": "add_3",
    "canonical_solution": "    return value + 3\n",
    "test": "def check(candidate):\n    assert candidate(1) == 4\n",
}
MBPP: dict[str, Any] = {
    "task_id": 601,
    "text": "Write a function add_4 that adds 4.",
    "code": "def add_4(value):\r\n    return value + 4",
    "test_list": ["assert add_4(1) == 5", "assert add_4(2) == 6"],
    "test_setup_code": "import math",
    "challenge_test_list": ["assert add_4(-4) == 0"],
}


def file_of(folder: Path, *items: object) -> EvaluationSet:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return EvaluationSet(name="own", file=str(path))


def rows_of(run: TinyRun, one: EvaluationSet) -> list[dict[str, Any]]:
    (lock,) = lock_evaluation_sets(set_sources(EvaluationParameters(sets=(one,))), BENCHMARKS_KEY).sources
    return list(read_set(one, lock, load_tokenizer(run.tokenizer)))


def test_problems_are_asked_as_rows_are(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The prompt is what a server renders; a given head is its end, and the answer goes on from there."""
    head, question = rows_of(tiny_run, file_of(tmp_path, HUMAN_EVAL, MBPP))
    tokenizer = load_tokenizer(tiny_run.tokenizer)
    for row in (head, question):
        chat = [{"role": "user", "content": row["instruction"]}]
        served = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert row["prompt_ids"][: len(served)] == served
        whole = tokenizer.decode(row["prompt_ids"][len(served) :] + row["completion_ids"][:-1])
        assert whole == row["completion"]
        assert row["completion_ids"][-1] == tokenizer.eos_token_id
    assert head["prefix"] == 'def add_3(value):\n    """Add 3.\n    """'
    assert head["prompt"].endswith(head["prefix"])
    assert (head["row_id"], head["entry_point"]) == ("HumanEval/0", "add_3")
    assert head["tests"] == [f"{HUMAN_EVAL['test']}\n\ncheck(add_3)\n"]
    assert (question["row_id"], question["prefix"], question["test_setup"]) == ("601", "", "import math")
    assert question["tests"] == [*MBPP["test_list"], *MBPP["challenge_test_list"]]
    assert question["instruction"].endswith("assert add_4(2) == 6"), "the harder tests are not told"
    for row in (head, question):
        space: dict[str, Any] = {}
        exec("\n".join([row["test_setup"], row["completion"], *row["tests"]]), space)  # noqa: S102 - the text above


def test_a_few_problems_are_spread_over_the_set(tiny_run: TinyRun, tmp_path: Path) -> None:
    one = file_of(tmp_path, *({**MBPP, "task_id": number} for number in range(11)))
    rows = rows_of(tiny_run, one.model_copy(update={"max_prompts": 3}))
    assert [row["row_id"] for row in rows] == ["0", "5", "10"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"task_id": 1}, "set.jsonl:1: no text 'prompt'"),
        ({**MBPP, "code": None}, "set.jsonl:1: no text 'code'"),
        ({**MBPP, "test_list": "assert"}, "set.jsonl:1: test_list is not a list of texts"),
        ({**MBPP, "text": "spell </s>"}, "601: the prompt template refuses it"),
        ([1], "set.jsonl:1: "),
    ],
)
def test_what_is_no_problem_is_an_error(tiny_run: TinyRun, tmp_path: Path, item: object, message: str) -> None:
    with pytest.raises(DataError) as error:
        rows_of(tiny_run, file_of(tmp_path, item))
    assert message in str(error.value)


def test_a_set_that_cannot_be_read(tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no problem"):
        rows_of(tiny_run, file_of(tmp_path))
    with pytest.raises(DataError, match=r"parameters\.evaluation\.sets: no file 'none\.jsonl'"):
        lock_evaluation_sets(["none.jsonl"], BENCHMARKS_KEY)
    one = file_of(tmp_path, MBPP)
    (lock,) = lock_evaluation_sets([str(one.file)], BENCHMARKS_KEY).sources
    file_of(tmp_path, HUMAN_EVAL)
    with pytest.raises(DataError, match="changed since the resolve step locked it"):
        read_set(one, lock, load_tokenizer(tiny_run.tokenizer))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([{"name": "a"}], "exactly one of package and file"),
        ([{"name": "a", "file": "x", "package": "human_eval"}], "exactly one of package and file"),
        ([{"name": "a", "file": "x"}, {"name": "a", "file": "y"}], "two of the name 'a'"),
    ],
)
def test_impossible_sets(sets: list[dict[str, str]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationParameters.model_validate({"sets": sets})


def test_the_figures_of_a_set_stand_apart(tiny_run: TinyRun, tmp_path: Path) -> None:
    one = file_of(tmp_path, HUMAN_EVAL, MBPP)
    plain = EvaluationParameters(max_prompts=3, max_new_tokens=8, sandbox=SandboxParameters(accept_risk=True))
    with_set = plain.model_copy(update={"sets": (one,)})
    folders = (tiny_run.model, tiny_run.adapter, tiny_run.tokenizer)
    alone = evaluate_adapter(tiny_run.examples["test"], *folders, plain)
    locks = lock_benchmarks(set_sources(with_set), None, {})
    both = evaluate_adapter(tiny_run.examples["test"], *folders, with_set, benchmarks=locks)
    assert (both.figures, both.samples) == (alone.figures, alone.samples)
    (own,) = both.sets
    assert [sample.row_id for sample in own.samples] == ["HumanEval/0", "601"]
    assert own.samples[0].tuned_answer.startswith('def add_3(value):\n    """Add 3.\n    """')
    assert [figure.name for figure in own.figures if figure.name != "passes its tests"] == [
        figure.name for figure in both.figures
    ]
    assert own.figures[6].name == "passes its tests"
    assert own.verdicts is not None
    assert (own.verdicts.tested, own.verdicts.programs) == (2, 4)
    assert "base_own_loss" in both.metadata()
    assert "Set own: 2 problems" in both.html()
    assert problem_of(MBPP, "").entry_point == ""
