"""What the machines besides the first one run: ``python -m steps.train.distributed.join``.

The pipeline runs on machine 0. When its train step begins, it leaves the task in the folder that all machines see, and
the processes of this machine take part; when the run has ended, whoever started it leaves the file ``ended`` there.
"""

import threading
import time

from steps.distributed.machine import Machine
from steps.errors import ConfigError
from steps.train.distributed.launch import TOGETHER, attempt
from steps.train.distributed.task import ARGUMENTS, SharedTask
from steps.train.preemption import signals_noted
from steps.train.tracking import nowhere

ENDED = "ended"
WAIT_SECONDS = 0.5


def main() -> None:
    """Take part in what machine 0 does, until it has ended."""
    with signals_noted() as asked_to_go:
        take_part(Machine.here(), asked_to_go)


def take_part(machine: Machine, asked_to_go: threading.Event) -> None:
    """Start this machine's processes whenever machine 0 starts its own; what goes wrong here is left for it.

    Raises:
        ConfigError: there is one machine, or this is machine 0.
    """
    if machine.folder is None or not machine.number:
        raise ConfigError("this is the only machine or machine 0 (NNODES, NODE_RANK); run the pipeline here")
    together, done = machine.folder / TOGETHER, ""
    while not (machine.folder / ENDED).exists() and not asked_to_go.is_set():
        task = SharedTask.read(together) if (together / ARGUMENTS).is_file() else None
        if task is None or task.attempt == done:
            time.sleep(WAIT_SECONDS)
            continue
        done = task.attempt
        failure = attempt(task, together, machine, asked_to_go, nowhere)
        if failure is not None:
            failure.write(together)


if __name__ == "__main__":
    main()
