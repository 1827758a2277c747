"""When a checkpoint is written: every so often, at the end, and when the process is asked to go (SIGTERM, Ctrl-C)."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steps.train.distributed.ranks import Ranks
from steps.train.params import CheckpointParameters

ENDING = b"\n  train: ends after this step, with a checkpoint; Ctrl-C again ends it at once, without\n"


@contextmanager
def signals_noted() -> Iterator[threading.Event]:
    """Give an event that a SIGTERM or a first Ctrl-C sets, instead of ending the process; a second one ends it.

    The former handlers are put back. Python lets only the main thread handle signals: elsewhere they do what they did.
    Where Ctrl-C is ignored it stays so: a shell has it ignored by jobs in the background, for which it is not meant.
    """
    asked, calls = threading.Event(), count()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _frame: FrameType | None) -> None:
        again = next(calls) > 0  # at once: another signal's call may come between any two lines of this one
        asked.set()
        if number == signal.SIGINT and again:
            signal.signal(number, former[number])
            signal.raise_signal(number)
        elif number == signal.SIGINT:
            os.write(2, ENDING)  # a print that was interrupted takes no other one

    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    noted = (signal.SIGTERM,) if ignored else (signal.SIGTERM, signal.SIGINT)
    former: dict[int, Any] = {one: signal.signal(one, note) for one in noted}
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class CheckpointSchedule(TrainerCallback):
    """Asks the trainer for a checkpoint when one is due, and for the end of training after a SIGTERM or Ctrl-C."""

    def __init__(self, parameters: CheckpointParameters, asked_to_go: threading.Event, ranks: Ranks) -> None:
        self.parameters = parameters
        self.ranks = ranks
        self.asked_to_go = asked_to_go
        self.last = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """After every optimiser step; an evaluation that is due comes before the checkpoint."""
        every = self.parameters.every_steps
        due = time.monotonic() - self.last >= 60 * self.parameters.every_minutes
        due = due or (every is not None and state.global_step % every == 0)
        self._decide(control, due)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An evaluation takes long enough for a SIGTERM, and may have stopped the training."""
        self._decide(control, control.should_save)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The time to the next checkpoint starts."""
        self.last = time.monotonic()

    def _decide(self, control: TrainerControl, due: bool) -> None:
        asked, due = self.ranks.any(self.asked_to_go.is_set(), due)  # all stop after the same step
        if asked:
            control.should_training_stop = True
        control.should_save = due or control.should_training_stop
