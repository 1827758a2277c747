"""What a training costs while it goes on: time by phase, tokens, energy, memory."""

import resource
import time
from collections import deque
from typing import Any, Protocol

import torch

from steps.train.course import Course
from steps.train.energy import energy_counter


def tokens_in(inputs: dict[str, Any]) -> int | torch.Tensor:
    """Of a micro-batch; padding is none, and packed blocks have no mask."""
    mask: torch.Tensor | None = inputs.get("attention_mask")
    return int(inputs["input_ids"].numel()) if mask is None else mask.sum()


class Moment(Protocol):
    """What is used of a CUDA event."""

    def query(self) -> bool:
        """Whether the moment has come."""

    def elapsed_time(self, later: Any) -> float:
        """Milliseconds."""


class ClockEvent:
    """A moment by the processor's clock."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def query(self) -> bool:
        """It has."""
        return True

    def elapsed_time(self, later: "ClockEvent") -> float:
        """Milliseconds."""
        return (later.at - self.at) * 1000


class Meter:
    """Writes costs into the course; every moment belongs to one phase, from one mark to the next.

    On a GPU a mark is a CUDA event, which the GPU stamps when it gets there and which is read once it has: waiting at
    each mark would leave the GPU without work.
    """

    def __init__(self, course: Course, on_gpu: bool) -> None:
        self.course = course
        self.on_gpu = on_gpu
        self.began = False
        self.last = self._now()
        self.marks: deque[tuple[str, Moment, list[int | torch.Tensor]]] = deque()
        """Phase, its end, and the tokens trained on since the mark before."""
        self.tokens: list[int | torch.Tensor] = []
        self.energy = energy_counter() if on_gpu else None
        self.joules = self.energy() if self.energy else 0.0
        if self.energy is None:
            course.energy_joules = None
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def begin(self) -> None:
        """The training proper starts: what was before counts as ``start``, whatever it was marked as."""
        self.mark("start")
        self.began = True

    def mark(self, phase: str) -> None:
        """The time since the last mark was spent on ``phase``."""
        self.marks.append((phase if self.began else "start", self._now(), self.tokens))
        self.tokens = []

    def add(self, tokens: int | torch.Tensor) -> None:
        """So many tokens were trained on by all processes, if training has begun."""
        if self.began:
            self.tokens.append(tokens)

    def update(self, *, wait: bool = False) -> None:
        """Bring the course up to date; ``wait`` for the GPU to have stamped all marks."""
        if wait and self.on_gpu:
            torch.cuda.synchronize()
        while self.marks and self.marks[0][1].query():
            phase, moment, tokens = self.marks.popleft()
            spent = self.last.elapsed_time(moment) / 1000
            self.course.seconds_in[phase] = self.course.seconds_in.get(phase, 0.0) + spent
            self.last = moment
            self.course.tokens += sum(int(number) for number in tokens)
        self.course.peak_memory_bytes = max(self.course.peak_memory_bytes, self._peak_memory())
        if self.energy is not None and self.course.energy_joules is not None:
            now = self.energy()
            self.course.energy_joules += now - self.joules
            self.joules = now

    def _now(self) -> Moment:
        if not self.on_gpu:
            return ClockEvent()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's has no types
        event.record()
        moment: Moment = event
        return moment

    def _peak_memory(self) -> int:
        """Bytes: PyTorch's on the GPU, or the process's largest resident size on the CPU."""
        if self.on_gpu:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
