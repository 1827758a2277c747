"""Times optimiser steps of a trainer, and profiles one more."""

import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

LARGEST = 30
"""Kernels that a profile shows."""


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(TrainerCallback):
    """Seconds between the end of the warm-up and the end of the last counted step; waits for the GPU only there."""

    def __init__(self, warm_up: int, steps: int, *, profiled: bool) -> None:
        self.warm_up = warm_up
        self.steps = steps
        self.profiled = profiled
        self.seconds = 0.0
        self.kernels: list[tuple[str, int, float]] = []  # name, launches, milliseconds; largest first
        self._start = 0.0
        self._profiler: Any = None

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the profile before the extra step."""
        if self.profiled and state.global_step == self.steps:
            from torch.profiler import ProfilerActivity, profile

            self._profile_start = _now()
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profiler = profile(activities=activities)
            self._profiler.__enter__()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Read the clock where counting starts and ends."""
        if state.global_step == self.warm_up:
            self._start = _now()
        if state.global_step == self.steps:
            self.seconds = _now() - self._start
        if self._profiler is not None:
            wall = _now() - self._profile_start
            self._profiler.__exit__(None, None, None)
            self.kernels = self._largest(wall)
            self._profiler = None

    def _largest(self, wall: float) -> list[tuple[str, int, float]]:
        events = [
            event
            for event in self._profiler.key_averages()
            if event.device_type.name == "CUDA" and event.self_device_time_total > 0
        ]
        total = sum(event.self_device_time_total for event in events) / 1000
        launches = sum(event.count for event in events)
        events.sort(key=lambda event: -event.self_device_time_total)
        rows = [(event.key, event.count, event.self_device_time_total / 1000) for event in events[:LARGEST]]
        return [(f"all kernels, in a step of {1000 * wall:.0f} ms", launches, total), *rows]
