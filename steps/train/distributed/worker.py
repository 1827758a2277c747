"""One of the processes that share a training: ``python -m steps.train.distributed.worker FOLDER``."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.distributed.process import hide_place, take_part

if TYPE_CHECKING:
    from steps.train.distributed.ranks import Ranks


def train(folder: Path, _: int) -> None:
    """Do the task of a folder; the first process writes the adapter and the report."""
    from steps.train.distributed.task import METRICS, REPORT, SharedTask, append_metrics, read_blocks
    from steps.train.tracking import nowhere
    from steps.train.train import train_share

    ranks = join()
    task = SharedTask.read(folder)
    on_metrics = (lambda step, figures: append_metrics(folder, step, figures)) if ranks.first else nowhere
    report = train_share(task, read_blocks(folder), ranks, on_metrics)
    if ranks.first:
        (folder / METRICS).touch()
        (folder / REPORT).write_text(report.model_dump_json(), encoding="utf-8")
    leave()


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
    hide_place()
    # It would warn that it knows of one process although there are several
    logging.getLogger("transformers.training_args").setLevel(logging.ERROR)
    return ranks


def leave() -> None:
    """Wait until all are done: the first process has written, and no other misses what it keeps for all."""
    import torch.distributed as dist

    dist.barrier()


def left_plan(error: BaseException) -> dict[str, Any] | None:
    """The plan that a smaller one may follow."""
    from steps.train.stepdown import LeavePlan

    return error.left.model_dump() if isinstance(error, LeavePlan) else None


if __name__ == "__main__":
    take_part(train, left_plan)
