"""Starts the processes that share some work, watches them, and ends them together.

torchrun would wait half a minute for processes that a dead one has left waiting, put an agent between us and them that
outlives a killed parent, and report a traceback that need not be the first one's. What it gives its processes, the
environment variables, is the same here.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from steps.device import give_back_memory
from steps.distributed.failure import Failure, failures
from steps.distributed.machine import Machine
from steps.distributed.process import ATTEMPT, PARENT
from steps.fingerprint import ROOT

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Launch:
    """Processes that share the work of a folder, each a ``python -m MODULE FOLDER``."""

    module: str
    folder: Path
    processes: int  # over all machines
    machine: Machine = field(default_factory=Machine)
    attempt: str = ""  # another one at each time that processes are started in the folder
    environment: Mapping[str, str] = field(default_factory=dict)  # more of it

    @property
    def local(self) -> int:
        """The processes of this machine."""
        return self.processes // self.machine.count


def run(
    launch: Launch, watch: Callable[[], None] = lambda: None, asked_to_go: threading.Event | None = None
) -> Failure | None:
    """Start this machine's processes and wait until all have ended, or until one has failed on any machine.

    Args:
        launch: what is started.
        watch: called again and again meanwhile, and once after the last has ended.
        asked_to_go: when it is set, the processes get a SIGTERM.
    """
    give_back_memory()  # say of quantising: it is the processes' from here on
    with _started(launch) as workers:
        asked = False
        while True:
            codes = [worker.poll() for worker in workers]
            watch()
            if any(codes) or (launch.machine.count > 1 and failures(launch.folder, launch.attempt)):
                return first_failure(launch, codes)
            if all(code == 0 for code in codes):
                return None
            if asked_to_go and asked_to_go.is_set() and not asked:
                asked = True
                for worker in workers:
                    worker.terminate()
            time.sleep(POLL_SECONDS)


@contextmanager
def _started(launch: Launch) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """This machine's processes; whatever happens, they end here."""
    common = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    common |= {"WORLD_SIZE": str(launch.processes), PARENT: str(os.getpid()), ATTEMPT: launch.attempt}
    common |= launch.environment
    common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // launch.local)))
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(launch.local):
            rank = launch.machine.number * launch.local + number
            place = {"RANK": str(rank), "LOCAL_RANK": str(number)}
            command = [sys.executable, "-W", "ignore", "-m", launch.module, str(launch.folder)]
            with _log(launch, rank).open("ab") as log:
                shown = None if rank == 0 else log
                workers.append(subprocess.Popen(command, env={**common, **place}, stdout=shown, stderr=shown))  # noqa: S603 - our own module
        yield workers
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()


def first_failure(launch: Launch, codes: list[int | None]) -> Failure:
    """What went wrong first: a process that was killed leaves no record, and others fail since it is gone.

    Args:
        launch: what was started.
        codes: with which this machine's processes have ended; None where one runs.
    """
    before = launch.machine.number * launch.local
    killed = [number for number, code in enumerate(codes) if code is not None and code < 0]
    if killed:
        rank, code = before + killed[0], -(codes[killed[0]] or 0)
        said = f"it was killed by signal {code}" + " (by the system where memory is short)" * (code == 9)
        return Failure(rank=rank, attempt=launch.attempt, at=0, kind="Killed", message=said, traceback="")
    found = failures(launch.folder, launch.attempt)
    if found:
        return found[0]
    number = next(number for number, code in enumerate(codes) if code)
    rank, said = before + number, f"it ended with code {codes[number]}"
    shown = _log(launch, rank).read_text(encoding="utf-8", errors="replace")
    return Failure(rank=rank, attempt=launch.attempt, at=0, kind="Ended", message=said, traceback=shown)


def _log(launch: Launch, rank: int) -> Path:
    """What a process besides the first one prints."""
    return launch.folder / f"process-{rank}.log"
