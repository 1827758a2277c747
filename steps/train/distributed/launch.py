"""Starts the processes of a shared training, watches them, and ends them together.

torchrun would wait half a minute for processes that a dead one has left waiting, put an agent between us and them that
outlives a killed parent, and report a traceback that need not be the first one's. What it gives its processes, the
environment variables, is the same here.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from datasets import DatasetDict

from steps import errors
from steps.errors import ConfigError, DeviceError, PipelineError, TrainingError
from steps.fingerprint import ROOT
from steps.train.distributed.machine import Machine
from steps.train.distributed.task import METRICS, REPORT, Failure, SharedTask, failures, write_blocks
from steps.train.distributed.variables import ATTEMPT, PARENT
from steps.train.plan.params import PlanParameters
from steps.train.report import TrainingReport
from steps.train.tracking import OnMetrics

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

POLL_SECONDS = 0.1

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
            raise _error_of(failure, task.processes)
        print(f"  train: {failure.left.reason}; goes on with another plan than {failure.left.plan}", flush=True)
        task = task.model_copy(update={"left": [*task.left, failure.left]})


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
    with _started(task, folder, machine) as workers:
        told, asked = 0, False
        while True:
            codes = [worker.poll() for worker in workers]
            told = _tell(folder, told, on_metrics)
            if any(codes) or (machine.count > 1 and failures(folder, task.attempt)):
                return _first(codes, folder, machine, task.attempt)
            if all(code == 0 for code in codes):
                return None
            if asked_to_go.is_set() and not asked:
                asked = True
                for worker in workers:
                    worker.terminate()
            time.sleep(POLL_SECONDS)


@contextmanager
def _started(task: SharedTask, folder: Path, machine: Machine) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """This machine's processes; whatever happens, they end here."""
    local = task.processes // machine.count
    store = _meeting_place(machine)
    common = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    common |= {"WORLD_SIZE": str(task.processes), "MASTER_ADDR": machine.address}
    common |= {PARENT: str(os.getpid()), ATTEMPT: task.attempt}
    common |= {"MASTER_PORT": str(store.port if store else machine.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    if machine.count == 1:
        common.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nothing leaves the machine, whatever its name resolves to
        common.setdefault("NCCL_SOCKET_IFNAME", "lo")
    common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // local)))
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(local):
            rank = machine.number * local + number
            place = {"RANK": str(rank), "LOCAL_RANK": str(number)}
            command = [sys.executable, "-W", "ignore", "-m", f"{__package__}.worker", str(folder)]
            with (folder / f"process-{rank}.log").open("ab") as log:
                shown = None if rank == 0 else log
                workers.append(subprocess.Popen(command, env={**common, **place}, stdout=shown, stderr=shown))  # noqa: S603 - our own module
        yield workers
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()


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


def _first(codes: list[int | None], folder: Path, machine: Machine, attempt: str) -> Failure:
    """What went wrong first: a process that was killed leaves no record, and others fail since it is gone."""
    local = len(codes)
    killed = [number for number, code in enumerate(codes) if code is not None and code < 0]
    if killed:
        rank, code = machine.number * local + killed[0], -(codes[killed[0]] or 0)
        said = f"it was killed by signal {code}" + " (by the system where memory is short)" * (code == 9)
        return Failure(rank=rank, attempt=attempt, at=0, kind="Killed", message=said, traceback="")
    found = failures(folder, attempt)
    if found:
        return found[0]
    number = next(number for number, code in enumerate(codes) if code)
    rank, said = machine.number * local + number, f"it ended with code {codes[number]}"
    shown = (folder / f"process-{rank}.log").read_text(encoding="utf-8", errors="replace")
    return Failure(rank=rank, attempt=attempt, at=0, kind="Ended", message=said, traceback=shown)


def _error_of(failure: Failure, processes: int) -> PipelineError:
    """The error to raise here: what the process raised if it is one of ours, else one that names the process."""
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, PipelineError):
        return kind(failure.message)
    print(failure.traceback, file=sys.stderr, flush=True)
    first = failure.message.splitlines()[0] if failure.message else ""
    return TrainingError(
        f"process {failure.rank} of {processes} (from 0) failed first, and the others were ended: {failure.kind}: "
        f"{first}; what it checkpointed is kept, so run again to go on from there"
    )
