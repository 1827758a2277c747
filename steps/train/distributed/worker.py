"""One of the processes that share a training: ``python -m steps.train.distributed.worker FOLDER``.

Its place comes by torchrun's environment variables, RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, so that
torchrun can start it as well as ``launch.py``.
"""

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from steps.train.distributed.variables import ATTEMPT, PARENT

if TYPE_CHECKING:
    from steps.train.distributed.ranks import Ranks
    from steps.train.distributed.task import LeftPlan

PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE")

PR_SET_PDEATHSIG = 1
"""Linux: the signal that the kernel sends when the parent ends (prctl(2))."""


def main() -> None:
    """Train, and leave a record of what failed."""
    folder, rank, attempt = Path(sys.argv[1]), int(os.environ["RANK"]), os.environ.get(ATTEMPT, "")
    _end_with_parent()
    _see_own_gpu(int(os.environ["LOCAL_RANK"]))
    try:
        ranks = join()
        train(folder, ranks)
        leave()
        sys.stdout.flush()
        os._exit(0)  # gloo's threads, when they are taken down, now and then abort a process that has done its work
    except BaseException as error:
        from steps.train.distributed.task import failure_of

        failure_of(error, rank, attempt, _left(error)).write(folder)
        sys.stdout.flush()
        os._exit(1)  # at once: what else a process does at its end may wait for the others


def train(folder: Path, ranks: "Ranks") -> None:
    """Do the task of a folder; the first process writes the adapter and the report."""
    from steps.train.distributed.task import METRICS, REPORT, SharedTask, append_metrics, read_blocks
    from steps.train.tracking import nowhere
    from steps.train.train import train_share

    task = SharedTask.read(folder)
    on_metrics = (lambda step, figures: append_metrics(folder, step, figures)) if ranks.first else nowhere
    report = train_share(task, read_blocks(folder), ranks, on_metrics)
    if ranks.first:
        (folder / METRICS).touch()
        (folder / REPORT).write_text(report.model_dump_json(), encoding="utf-8")


def join() -> "Ranks":
    """Meet the others; accelerate and transformers, which know these variables too, are to know of one process."""
    import torch
    import torch.distributed as dist

    from steps.train.distributed.ranks import Ranks

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend)
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    if torch.cuda.is_available():
        ranks.add(torch.zeros(1, device="cuda"))  # NCCL takes its memory now, so that the planner sees what is left
    for name in PLACE:
        os.environ.pop(name, None)
    # It would warn that it knows of one process although there are several
    logging.getLogger("transformers.training_args").setLevel(logging.ERROR)
    return ranks


def leave() -> None:
    """Wait until all are done: the first process has written, and no other misses what it keeps for all."""
    import torch.distributed as dist

    dist.barrier()


def _left(error: BaseException) -> "LeftPlan | None":
    from steps.train.stepdown import LeavePlan

    return error.left if isinstance(error, LeavePlan) else None


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


if __name__ == "__main__":
    main()
