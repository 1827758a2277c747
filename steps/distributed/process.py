"""What each process that shares some work does at its begin and at its end.

Its place comes by torchrun's environment variables, RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, so that
torchrun can start it as well as ``launch.py``.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from steps.distributed.failure import failure_of

PARENT = "QLORA_PARENT"
"""Environment variable by which a launch says more than torchrun would: process whose end is this one's too."""

ATTEMPT = "QLORA_ATTEMPT"
"""The same: which start of the processes this is."""

PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE")

PR_SET_PDEATHSIG = 1
"""Linux: the signal that the kernel sends when the parent ends (prctl(2))."""


def take_part(
    work: Callable[[Path, int], None], left: Callable[[BaseException], dict[str, Any] | None] = lambda _: None
) -> NoReturn:
    """Do this process's part of the work, and leave a record of what failed.

    Args:
        work: is given the folder that the command line names, and this process's number, from 0.
        left: what new processes have to know after an error, where they may go on.
    """
    folder, rank, attempt = Path(sys.argv[1]), int(os.environ["RANK"]), os.environ.get(ATTEMPT, "")
    _end_with_parent()
    _see_own_gpu(int(os.environ["LOCAL_RANK"]))
    try:
        work(folder, rank)
        sys.stdout.flush()
        os._exit(0)  # gloo's threads, when they are taken down, now and then abort a process that has done its work
    except BaseException as error:
        failure_of(error, rank, attempt, left(error)).write(folder)
        sys.stdout.flush()
        os._exit(1)  # at once: what else a process does at its end may wait for the others


def hide_place() -> None:
    """Let the libraries that know torchrun's variables too, such as accelerate, know of one process."""
    for name in PLACE:
        os.environ.pop(name, None)


def _end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that does."""
    parent = os.environ.pop(PARENT, "")
    if not parent:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended meanwhile
        os._exit(1)


def _see_own_gpu(local_rank: int) -> None:
    """Of the machine's GPUs this process knows its own alone, as its first: nothing else need know of the others."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    own = visible.split(",") if visible else None
    os.environ["CUDA_VISIBLE_DEVICES"] = own[local_rank] if own and local_rank < len(own) else str(local_rank)
