"""Tasks of lm-evaluation-harness, done by the models that are loaded already, document by document."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from steps.errors import DataError
from steps.evaluate.params import EvaluationTask
from steps.evaluate.report import TaskReport
from steps.evaluate.statistics import compare_means
from steps.resolve.benchmarks import TASKS_KEY, task_manager

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedTask:
    """A task, group or tag with the documents of everything behind it."""

    asked: EvaluationTask
    manager: "TaskManager"
    members: "list[Task]"


@dataclass(frozen=True)
class Scores:
    """A metric's value for each document."""

    values: list[float]
    higher_is_better: bool


def load_task(one: EvaluationTask) -> LoadedTask:
    """The task with its data set, from lm-eval's folder or the user's, before any model is loaded.

    Raises:
        DataError: lm-eval or the task is missing, or its data set cannot be loaded.
    """
    manager = task_manager(one.include)
    try:
        members = list(manager.load(one.name)["tasks"].values())
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{TASKS_KEY}: {one.name} cannot be loaded: {first}; mend its data set or remove it") from error
    return LoadedTask(one, manager, members)


def do_task(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase", task: LoadedTask, batch_size: int
) -> dict[str, Scores]:
    """Every metric that is a mean over documents, by its name; the documents of a group's tasks count alike.

    lm-eval itself refuses a task that runs generated code; prompts are the task's own, without a chat template.

    Args:
        model: the 4-bit model, with or without the adapter.
        tokenizer: the trained tokenizer.
        task: what is asked.
        batch_size: requests that are computed together.

    Raises:
        DataError: the task has no such metric.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    found: dict[str, Any] = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=list(task.members),
        num_fewshot=task.asked.num_fewshot,
        limit=task.asked.limit,
        bootstrap_iters=0,  # the intervals are our own, of the paired difference
        task_manager=task.manager,
        log_samples=True,
    )
    scores: dict[str, Scores] = {}
    for name, samples in found["samples"].items():
        for metric, one in _means(samples, found["results"][name], found["higher_is_better"][name]).items():
            before = scores.get(metric, Scores([], one.higher_is_better))
            scores[metric] = Scores([*before.values, *one.values], one.higher_is_better)
    if not scores:
        raise DataError(f"{TASKS_KEY}: no metric of {task.asked.name} is a mean over its documents; take another task")
    return scores


def compare_task(name: str, base: dict[str, Scores], tuned: dict[str, Scores], confidence: float) -> TaskReport:
    """A figure for each metric."""
    figures = [
        compare_means(
            metric, one.values, tuned[metric].values, confidence, "", "higher" if one.higher_is_better else "lower"
        )
        for metric, one in base.items()
    ]
    return TaskReport(name=name, documents=len(next(iter(base.values())).values), figures=figures)


def _means(
    samples: list[dict[str, Any]], results: dict[str, Any], higher_is_better: dict[str, bool]
) -> dict[str, Scores]:
    """The metrics whose value in lm-eval's own results is the mean of the documents' values.

    Others, such as BLEU of a whole corpus, have no value for a document that an interval could be made of. A metric
    is named with its filter where the task has several.
    """
    filters = dict.fromkeys(str(sample["filter"]) for sample in samples)
    found: dict[str, Scores] = {}
    for chosen in filters:
        rows = [sample for sample in samples if sample["filter"] == chosen]
        for metric in rows[0]["metrics"]:
            values, whole = [row[metric] for row in rows], results.get(f"{metric},{chosen}")
            if not isinstance(whole, float | int) or not all(
                isinstance(one, float | int | np.number) for one in values
            ):
                continue
            if math.isclose(float(np.mean(values)), whole, rel_tol=1e-6, abs_tol=1e-9):
                name = metric if len(filters) == 1 else f"{metric} ({chosen})"
                found[name] = Scores([float(one) for one in values], bool(higher_is_better.get(metric, True)))
    return found
