"""Out of memory is no end: the training goes on by a plan that needs less; nor are kernels that fail."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from steps.device import give_back_memory
from steps.errors import TrainingError
from steps.train.distributed.task import LeftPlan
from steps.train.plan.plan import Plan

SIGNS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
"""In messages of errors that have no type of their own: CUDA's, cuBLAS' and the processor's allocator."""

FEWER = "where memory is short, set parameters.plan.micro_batch to 1 and parameters.plan.recompute to layers"


Result = TypeVar("Result")


class PreflightError(TrainingError):
    """A library failed in a part of the pre-flight."""


class OutOfMemory(PreflightError):
    """Memory was short there."""


class LeavePlan(TrainingError):
    """A plan failed in one of several processes, and another may follow in new ones: the others wait for this one."""

    def __init__(self, left: LeftPlan) -> None:
        super().__init__(left.reason)
        self.left = left


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had too little memory."""
    if isinstance(error, OutOfMemory | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def step_down(
    plans: Sequence[Plan],
    plain: Callable[[], Sequence[Plan]],
    fits: Callable[[Plan], bool],
    train: Callable[[Plan, list[LeftPlan]], Result],
) -> Result:
    """Train by the first plan; where memory is short, by the next one that fits what is free then.

    Where anything else fails in the pre-flight of our own kernels, whatever this card or model does to them, TRL's and
    PEFT's take over.

    Args:
        plans: the fastest first; each needs less memory than the one before.
        plain: such plans without our kernels.
        fits: whether a plan is expected to fit now.
        train: is given the plan and those that were left; goes on from its newest checkpoint.

    Raises:
        TrainingError: memory is short for the last one too, or the pre-flight of a plain one failed.
    """
    left: list[LeftPlan] = []
    remaining = list(plans)
    while True:
        plan, *remaining = remaining
        try:
            return train(plan, left)
        except Exception as error:
            left.append(_left(plan, error, remaining))
        # Outside of the handler: the error's frames hold the model that is to go
        give_back_memory()
        remaining = list(plain()) if left[-1].plain else [one for one in remaining if fits(one)] or remaining[-1:]
        print(f"  train: {left[-1].reason}; goes on with {remaining[0]}", flush=True)


def next_plan(
    plans: Sequence[Plan],
    plain: Callable[[], Sequence[Plan]],
    before: list[LeftPlan],
    train: Callable[[Plan, list[LeftPlan]], Result],
) -> Result:
    """Train by the plan that follows those that former processes left, as :func:`step_down` would.

    Raises:
        LeavePlan: another is to be tried, by new processes.
    """
    remaining = list(plans)
    for left in before:
        remaining = list(plain()) if left.plain else remaining[1:]
    plan, *smaller = remaining
    try:
        return train(plan, before)
    except Exception as error:
        raise LeavePlan(_left(plan, error, smaller)) from error


def _left(plan: Plan, error: Exception, smaller: Sequence[Plan]) -> LeftPlan:
    """The plan that failed, where another one may follow; else its error is raised again."""
    short = is_out_of_memory(error)
    if not (smaller if short else isinstance(error, PreflightError) and plan.fused):
        raise error
    return LeftPlan(plan=str(plan), reason=str(error).splitlines()[0], plain=not short)
