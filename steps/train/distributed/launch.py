"""How many processes share a training, and their start, again by another plan where one fails."""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from datasets import DatasetDict

from steps.distributed.failure import Failure, error_of
from steps.distributed.launch import Launch, run
from steps.distributed.machine import Machine
from steps.errors import ConfigError, DeviceError, TrainingError
from steps.train.distributed.task import METRICS, REPORT, LeftPlan, SharedTask, write_blocks
from steps.train.plan.params import PlanParameters
from steps.train.report import TrainingReport
from steps.train.tracking import OnMetrics

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

TOGETHER = "together"
"""The task's folder, in the one that all machines see."""


def processes_of(plan: PlanParameters, blocks: int, machine: Machine) -> int:
    """How many processes share an optimiser step of so many blocks.

    Raises:
        ConfigError: the named number does not divide the blocks, or not over the machines.
        DeviceError: there are fewer GPUs.
    """
    import torch

    if machine.number:
        raise ConfigError(
            f"NODE_RANK is {machine.number}: the pipeline runs on machine 0; here run python -m "
            "steps.train.distributed.join"
        )
    key = "parameters.plan.distributed.processes"
    problem = plan.distributed.misfit(blocks)
    if problem:
        raise ConfigError(f"{key}: {problem}")
    cards = torch.cuda.device_count()
    named = plan.distributed.processes
    if named == "auto":
        numbers = range(machine.count, max(cards, 1) * machine.count + 1, machine.count)
        fitting = [number for number in numbers if blocks % number == 0 and plan.misfit(blocks, number) is None]
        number = max(fitting, default=machine.count)
        if blocks % number:
            raise ConfigError(f"{key}: no number of processes on {number} machines (NNODES) divides {blocks} blocks")
        return number
    if named % machine.count:
        raise ConfigError(f"{key}: {named} processes are not to be shared out over {machine.count} machines (NNODES)")
    if cards and named > cards * machine.count:
        raise DeviceError(
            f"{key}: {named} processes need as many GPUs, and there are {cards * machine.count}; use auto"
        )
    return named


def train_by_processes(
    task: SharedTask,
    blocks: DatasetDict,
    folder: Path,
    machine: Machine,
    asked_to_go: threading.Event,
    on_metrics: OnMetrics,
) -> TrainingReport:
    """Have the task done by its processes; where a plan fails that a smaller one may follow, again by that.

    Raises:
        PipelineError: as a process raised it.
        TrainingError: a process failed otherwise, or was killed.
    """
    if machine.folder is not None:
        folder, task = _where_all_see(task, machine.folder)
    write_blocks(blocks, folder)
    while True:
        task = task.model_copy(update={"attempt": uuid4().hex})
        task.write(folder)
        failure = attempt(task, folder, machine, asked_to_go, on_metrics)
        if failure is None:
            return TrainingReport.model_validate_json((folder / REPORT).read_text(encoding="utf-8"))
        if failure.left is None:
            raise error_of(failure, task.processes, TrainingError, "what it checkpointed is kept")
        left = LeftPlan.model_validate(failure.left)
        print(f"  train: {left.reason}; goes on with another plan than {left.plan}", flush=True)
        task = task.model_copy(update={"left": [*task.left, left]})


def _where_all_see(task: SharedTask, folder: Path) -> tuple[Path, SharedTask]:
    """A folder for the task in one that all machines see, with the models that it names."""
    together = folder / TOGETHER
    shutil.rmtree(together, ignore_errors=True)
    for name, source in (("model", task.model_folder), ("tokenizer", task.tokenizer_folder)):
        shutil.copytree(source, together / name)
    models = {"model_folder": together / "model", "tokenizer_folder": together / "tokenizer"}
    return together, task.model_copy(update=models)


def attempt(
    task: SharedTask, folder: Path, machine: Machine, asked_to_go: threading.Event, on_metrics: OnMetrics
) -> Failure | None:
    """Start this machine's processes and wait until all have ended, or until one has failed on any machine."""
    store = _meeting_place(machine)
    environment = {"MASTER_ADDR": machine.address, "MASTER_PORT": str(store.port if store else machine.port)}
    environment["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    if machine.count == 1:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            environment[name] = os.environ.get(name, "lo")  # nothing leaves the machine, whatever its name resolves to
    launch = Launch(f"{__package__}.worker", folder, task.processes, machine, task.attempt, environment)
    told = 0

    def tell() -> None:
        nonlocal told
        told = _tell(folder, told, on_metrics)

    return run(launch, tell, asked_to_go)


def _meeting_place(machine: Machine) -> "TCPStore | None":
    """Where the processes find each other; it is held by machine 0, so that no port is given away before it is used."""
    from torch._C._distributed_c10d import TCPStore

    return (
        TCPStore(machine.address, machine.port, is_master=True, wait_for_workers=False) if not machine.number else None
    )


def _tell(folder: Path, told: int, on_metrics: OnMetrics) -> int:
    """Hand on the figures that are new; gives how many bytes of them are told."""
    path = folder / METRICS
    if not path.is_file():
        return told
    with path.open("rb") as stream:
        stream.seek(told)
        for line in stream:
            if not line.endswith(b"\n"):
                break
            step, figures = json.loads(line)
            on_metrics(step, figures)
            told += len(line)
    return told
