"""Signals that a test sends to its own process, whatever the shell or scheduler that started it had done with them."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType

from torch.optim.optimizer import register_optimizer_step_post_hook

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextmanager
def handled_by(number: int, handler: Handler) -> Iterator[None]:
    """Handle a signal so: a test's own process may ignore Ctrl-C, as jobs in a shell's background do."""
    former = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, former)


@contextmanager
def sigterm_after(step: int, number: signal.Signals = signal.SIGTERM, times: int = 1) -> Iterator[None]:
    """Send this process a SIGTERM, or another signal, when the optimiser has taken so many steps.

    Each is handled before the next one is sent, and all of them before the step's end.
    """
    taken = count(1)

    def preempt(*_: object) -> None:
        if next(taken) == step:
            for _time in range(times):
                signal.raise_signal(number)

    hook = register_optimizer_step_post_hook(preempt)
    try:
        yield
    finally:
        hook.remove()
