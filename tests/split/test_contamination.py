"""Training rows that give away evaluation items are found, named and removed."""

import gzip
import json
from pathlib import Path

import pytest

from steps.errors import DataError
from steps.resolve.evaluation_sets import lock_evaluation_sets
from steps.resolve.locks import DataLock
from steps.split.contamination import COMMON, Contamination, shared_text
from steps.split.params import ContaminationParameters, SplitParameters
from steps.split.split import TEST_SPLIT, split_rows
from tests.rows import rows_of

QUESTION = "Return the sum of the squares of all even numbers of a list, from the first to the last one"
ANSWER = """    total = 0
    for number in numbers:
        if number % 2 == 0:
            total += number ** 2
    return total"""
OTHER = "Open the file of that name and give back every line without its end, in the order of the file itself"


def human_eval(folder: Path) -> Path:
    """A file like HumanEval's with one problem."""
    path = folder / "HumanEval.jsonl.gz"
    item = {"task_id": "HumanEval/0", "prompt": QUESTION, "canonical_solution": ANSWER, "test": "", "entry_point": "f"}
    path.write_bytes(gzip.compress((json.dumps(item) + "\n").encode()))
    return path


def with_sets(*paths: Path, **values: object) -> tuple[SplitParameters, DataLock]:
    """Parameters without a test split, and the lock."""
    against = tuple(map(str, paths))
    contamination = ContaminationParameters.model_validate({"against": against, **values})
    splits = SplitParameters(validation=0, test=0, contamination=contamination)
    return splits, lock_evaluation_sets(contamination.against)


def test_a_row_that_holds_an_answer_is_removed_and_explained(tmp_path: Path) -> None:
    leak = "def squares(numbers):\n" + ANSWER.replace("    ", "\t").upper()
    rows = rows_of((OTHER, "return open(name)"), ("Something else", leak))
    divided, removed, report = split_rows(rows, *with_sets(human_eval(tmp_path)))
    assert divided["train"]["location"][:] == ["file:0"]
    assert removed["location"][:] == ["file:1"]
    (found,) = report.contamination
    assert removed["reasons"][0] == [f"holds 100% of the answer of HumanEval/0 ({found.evaluation_set})"]
    assert (found.row_id, found.item, found.part, found.share) == (rows[1]["row_id"], "HumanEval/0", "answer", 1.0)
    assert found.text.split()[:3] == ["TOTAL", "=", "0"]
    assert found.removed
    assert report.metadata()["contaminated_removed"] == 1
    assert [(one.items, one.contaminated) for one in report.compared_sets] == [(1, 1), (0, 0)]
    assert "HumanEval/0" in report.html()


def test_removal_is_a_parameter(tmp_path: Path) -> None:
    rows = rows_of((QUESTION.lower(), "return 1"), (OTHER, "return 2"))
    divided, removed, report = split_rows(rows, *with_sets(human_eval(tmp_path), remove=False))
    assert (len(divided["train"]), len(removed)) == (2, 0)
    assert (report.contaminated, report.contaminated_removed) == (1, 0)
    assert [one.removed for one in report.contamination] == [False]


def test_a_small_part_is_reported_and_stays(tmp_path: Path) -> None:
    part = " ".join(QUESTION.split()[:12]) + " array that has been sorted before it was given"
    rows = rows_of((part, "return 1"))
    divided, _, report = split_rows(rows, *with_sets(human_eval(tmp_path)))
    assert len(divided["train"]) == 1
    assert report.contaminated == 0
    assert 0 < report.contamination[0].share < 0.5
    _, removed, _ = split_rows(
        rows_of((part, "return 1"), (OTHER, "return 2")), *with_sets(human_eval(tmp_path), max_share=0.1)
    )
    assert len(removed) == 1


def test_longer_ngrams_find_less(tmp_path: Path) -> None:
    part = " ".join(QUESTION.split()[:12])
    rows = rows_of((part + " and so on, until the end of all things", "return 1"))
    assert split_rows(rows, *with_sets(human_eval(tmp_path), ngram=12))[2].contamination
    assert not split_rows(rows, *with_sets(human_eval(tmp_path), ngram=13))[2].contamination


def test_an_mbpp_file_and_own_rows_are_read_too(tmp_path: Path) -> None:
    mbpp, own = tmp_path / "mbpp.jsonl", tmp_path / "own.jsonl"
    mbpp.write_text(json.dumps({"text": QUESTION, "code": "pass", "task_id": 7}) + "\n\n", encoding="utf-8")
    own.write_text("\n" + json.dumps({"instruction": OTHER, "completion": "pass"}), encoding="utf-8")
    rows = rows_of((QUESTION, "return 1"), (OTHER, "return 2"), ("Else", "return 3"))
    _, _, report = split_rows(rows, *with_sets(mbpp, own))
    assert [(one.location, one.item) for one in report.contamination] == [("file:0", "7"), ("file:1", f"{own}:2")]
    assert [one.name for one in report.compared_sets] == [str(mbpp), str(own), TEST_SPLIT]


def test_the_own_test_split_is_always_compared() -> None:
    rows = [(f"Question number {i} of them all, about the thing {i}", f"return {i}") for i in range(40)]
    groups, splits = [f"group {i}" for i in range(40)], SplitParameters(validation=0, test=0.3)
    divided, _, report = split_rows(rows_of(*rows, group=groups), splits, DataLock(sources=[]))
    assert report.contamination == []
    tested = int(divided["test"]["location"][0].split(":")[1])
    trained = int(divided["train"]["location"][0].split(":")[1])
    rows[tested] = ("A question", ANSWER)
    rows[trained] = ("Quite another question", "def g(numbers):\n" + ANSWER)
    cleaned, _, report = split_rows(rows_of(*rows, group=groups), splits, DataLock(sources=[]))
    assert [(one.location, one.item) for one in report.contamination] == [(f"file:{trained}", f"file:{tested}")]
    assert f"file:{trained}" not in cleaned["train"]["location"][:]
    assert f"file:{tested}" in cleaned["test"]["location"][:]
    assert cleaned["test"]["location"][:] == divided["test"]["location"][:]


def test_phrases_of_the_trade_and_short_texts_count_for_nothing() -> None:
    phrase = "write a python function that takes a list of integers and returns the"
    items = rows_of(*((f"{phrase} result", "return x") for _ in range(COMMON + 1)))
    assert len(Contamination(items, 10).find(items.select([0])).rows) == 0
    assert len(Contamination(items.select(range(COMMON)), 10).find(items.select([0])).rows) == 1
    short = rows_of(("Sort the list in place and return it", "return x"))  # 8 words: matched as a whole
    assert Contamination(short, 10).find(short).shares.tolist() == [1.0]
    shorter = rows_of(("Sort the list in place, please", "return x"))
    assert len(Contamination(shorter, 10).find(shorter).rows) == 0


def test_all_rows_contaminated_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'train' is empty: .*1 contaminated rows were removed"):
        split_rows(rows_of((QUESTION, ANSWER)), *with_sets(human_eval(tmp_path)))


def test_the_shared_text_is_the_rows_own() -> None:
    assert shared_text(["x", "Now,  Sum the (squares)!"], "sum THE squares of") == "Sum the (squares"
    assert shared_text(["a"], "b") == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a"}\n', r":1: no question and answer; an item needs the texts prompt and canonical_solution, "),
        (b'{"text": "a", "code": "b"}\n[1]\n', r":2: not a JSON object but a list; mend the line or remove it"),
    ],
)
def test_an_unreadable_set_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        split_rows(rows_of((QUESTION, ANSWER)), *with_sets(path))


def test_a_set_that_changed_after_its_lock_is_refused(tmp_path: Path) -> None:
    path = human_eval(tmp_path)
    splits, lock = with_sets(path)
    path.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match=r"changed since the resolve step locked it"):
        split_rows(rows_of((QUESTION, ANSWER)), splits, lock)
