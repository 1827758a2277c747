"""Evaluation sets as rows of a question and an answer."""

from collections.abc import Mapping

from datasets import Dataset, Features, Value

from steps.errors import DataError
from steps.ingest.evaluation_sets import set_records
from steps.resolve.evaluation_sets import KEY
from steps.resolve.locks import LockedSource
from steps.rows import table_of

ITEM_FEATURES = Features({name: Value("string") for name in ("location", "instruction", "completion")})
SHAPES = (("prompt", "canonical_solution"), ("text", "code"), ("instruction", "completion"))
"""Names of question and answer in HumanEval, in MBPP and here."""


def read_evaluation_set(lock: LockedSource) -> Dataset:
    """The items of a locked set (``ITEM_FEATURES``); ``location`` is the item's task_id, or its file and line.

    Raises:
        DataError: the file changed since it was locked or cannot be read, or an item has no question and answer.
    """
    return table_of((_item(fields, where) for where, fields in set_records(lock, KEY)), ITEM_FEATURES)


def _item(fields: Mapping[str, object], where: str) -> dict[str, object]:
    for question, answer in SHAPES:
        if isinstance(fields.get(question), str) and isinstance(fields.get(answer), str):
            location = str(fields.get("task_id", where))
            return {"location": location, "instruction": fields[question], "completion": fields[answer]}
    shapes = ", ".join(" and ".join(shape) for shape in SHAPES)
    raise DataError(f"{where}: no question and answer; an item needs the texts {shapes}")
