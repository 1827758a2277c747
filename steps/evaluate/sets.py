"""Evaluation sets as rows: the run's own template renders their problems, their tests come along unrun."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, Features, Value

from steps.chat_template import rendered_parts
from steps.errors import DataError
from steps.evaluate.params import EvaluationParameters, EvaluationSet
from steps.ingest.evaluation_sets import set_records
from steps.resolve.evaluation_sets import BENCHMARKS_KEY
from steps.resolve.locks import LockedSource
from steps.rows import EXAMPLE_FEATURES, table_of
from steps.tokenizer import continuation_encoder, encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SET_FEATURES = Features(
    {
        **EXAMPLE_FEATURES,
        "prefix": Value("string"),  # how an answer begins, given to the model: a function's head and docstring
        "test_setup": Value("string"),  # code before each test
        "entry_point": Value("string"),  # the function that the tests call, "" where the tests say it
    }
)


@dataclass(frozen=True)
class Problem:
    """One problem of a set, whatever its file calls the parts; ``reference`` is the whole answer, prefix included."""

    task_id: str
    instruction: str
    reference: str
    tests: tuple[str, ...]
    prefix: str = ""
    test_setup: str = ""
    entry_point: str = ""


def set_sources(evaluation: EvaluationParameters) -> tuple[str, ...]:
    """What ``resolve`` pins down of the sets, in their order: package names and paths."""
    return tuple(one.package or one.file or "" for one in evaluation.sets)


def task_folders(evaluation: EvaluationParameters) -> dict[str, str | None]:
    """The folder of each task of lm-eval, by its name; None where it is lm-eval's own."""
    return {one.name: one.include for one in evaluation.tasks}


def read_set(one: EvaluationSet, lock: LockedSource, tokenizer: "PreTrainedTokenizerBase") -> Dataset:
    """The problems that are asked (``SET_FEATURES``); ``row_id`` is a problem's task_id, or its file and line.

    Args:
        one: the set.
        lock: its file as ``resolve`` found it.
        tokenizer: the trained tokenizer, whose chat template renders the prompts.

    Raises:
        DataError: the file changed since then or cannot be read, or a problem lacks a part or spells a control token.
    """
    problems = [problem_of(fields, where) for where, fields in set_records(lock, BENCHMARKS_KEY)]
    if not problems:
        raise DataError(f"{lock.name}: holds no problem; mend {BENCHMARKS_KEY} or remove the set")
    count = min(one.max_prompts or len(problems), len(problems))
    chosen = np.linspace(0, len(problems) - 1, count).round().astype(int)
    return table_of(_rows([problems[index] for index in chosen], one.name, tokenizer), SET_FEATURES)


def problem_of(fields: Mapping[str, Any], where: str) -> Problem:
    """A HumanEval problem where there is an ``entry_point``, else one of MBPP.

    HumanEval's tests are one function ``check`` and its call. An MBPP question names no function, so its first tests
    stand in the prompt, as its authors do it (Austin et al. 2021, arXiv:2108.07732).

    Raises:
        DataError: a part is missing or has another type.
    """
    task_id = str(fields.get("task_id", where))
    if "entry_point" in fields:
        prompt, name = _text(fields, "prompt", where), _text(fields, "entry_point", where)
        return Problem(
            task_id=task_id,
            instruction=f"Complete this Python function.\n\n{prompt.strip()}",
            reference=f"{prompt}{_text(fields, 'canonical_solution', where)}".strip(),
            tests=(f"{_text(fields, 'test', where)}\n\ncheck({name})\n",),
            prefix=prompt.strip(),
            entry_point=name,
        )
    question = _text(fields, "text" if "text" in fields else "prompt", where)
    tests = _texts(fields, "test_list", where)
    return Problem(
        task_id=task_id,
        instruction="\n".join([question, "Your code should pass these tests:", *tests]) if tests else question,
        reference=_text(fields, "code", where).replace("\r\n", "\n").rstrip(),
        tests=(*tests, *_texts(fields, "challenge_test_list", where)),
        test_setup=_text(fields, "test_setup_code", where) if fields.get("test_setup_code") else "",
    )


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise DataError(f"{where}: no text {name!r}; a problem has text or prompt, code and test_list, or HumanEval's")
    return value


def _texts(fields: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = fields.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise DataError(f"{where}: {name} is not a list of texts; write [] where there is none")
    return tuple(value)


def _rows(problems: list[Problem], name: str, tokenizer: "PreTrainedTokenizerBase") -> Iterator[dict[str, object]]:
    render = renderer(tokenizer)
    for one in problems:
        yield {
            **render(one),
            "row_id": one.task_id,
            "source": name,
            "license": "",
            "instruction": one.instruction,
            "completion": one.reference,
            "tests": list(one.tests),
            "preamble": "",
            "prefix": one.prefix,
            "test_setup": one.test_setup,
            "entry_point": one.entry_point,
        }


def renderer(tokenizer: "PreTrainedTokenizerBase") -> Callable[[Problem], dict[str, object]]:
    """Gives a problem's ``prompt``, ``prompt_ids`` and ``completion_ids`` as the tokenizer's chat template has them.

    It raises :class:`DataError` where the template refuses the problem.
    """
    starts, continues = encoder(tokenizer), continuation_encoder(tokenizer)
    _, before, rest_of_turn = rendered_parts(tokenizer)
    after = rest_of_turn.partition(str(tokenizer.eos_token))[0]

    def ids(text: str) -> list[int]:
        found: list[int] = continues.encode(text, add_special_tokens=False).ids if text else []
        return found

    def render(one: Problem) -> dict[str, object]:
        prompt = _prompt(tokenizer, one)
        given = f"{before}{one.prefix}" if one.prefix else ""
        rest = f"{before}{one.reference}{after}".removeprefix(given)
        return {
            "prompt": f"{prompt}{given}",
            "prompt_ids": starts.encode(prompt, add_special_tokens=False).ids + ids(given),
            "completion_ids": [*ids(rest), tokenizer.eos_token_id],
        }

    return render


def _prompt(tokenizer: "PreTrainedTokenizerBase", one: Problem) -> str:
    from jinja2 import TemplateError

    chat = [{"role": "user", "content": one.instruction}]
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise DataError(f"{one.task_id}: the prompt template refuses it: {error}; remove the problem") from error
