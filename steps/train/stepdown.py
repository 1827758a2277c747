"""Out of memory is no end: the training goes on by a plan that needs less."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from steps.errors import TrainingError
from steps.train.plan.plan import Plan

SIGNS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
"""In messages of errors that have no type of their own: CUDA's, cuBLAS' and the processor's allocator."""

FEWER = "where memory is short, set parameters.plan.micro_batch to 1 and parameters.plan.recompute to layers"


Result = TypeVar("Result")


class OutOfMemory(TrainingError):
    """Memory was short in a part of the pre-flight."""


@dataclass(frozen=True)
class StepDown:
    """A plan that was left for a smaller one."""

    plan: Plan
    reason: str


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had too little memory."""
    if isinstance(error, OutOfMemory | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def within_memory(
    plans: Sequence[Plan], fits: Callable[[Plan], bool], train: Callable[[Plan, list[StepDown]], Result]
) -> Result:
    """Train by the first plan; where memory is short, by the next one that fits what is free then.

    Args:
        plans: the fastest first; each needs less memory than the one before.
        fits: whether a plan is expected to fit now.
        train: is given the plan and those that were left; goes on from its newest checkpoint.

    Raises:
        TrainingError: memory is short for the last one too.
    """
    left: list[StepDown] = []
    remaining = list(plans)
    while True:
        plan, *remaining = remaining
        try:
            return train(plan, left)
        except Exception as error:
            if not remaining or not is_out_of_memory(error):
                raise
            left.append(StepDown(plan, str(error).splitlines()[0]))
        # Outside of the handler: the error's frames hold the model that is to go
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        remaining = [one for one in remaining if fits(one)] or remaining[-1:]
        print(f"  train: {left[-1].reason}; goes on with {remaining[0]}", flush=True)
