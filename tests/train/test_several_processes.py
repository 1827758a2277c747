"""Several processes learn what one learns, and end together."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from datasets import DatasetDict

from steps.distributed.machine import FOLDER
from steps.errors import TrainingError
from steps.files import hashes
from steps.train.checkpoint import Checkpoints
from steps.train.distributed.join import ENDED
from steps.train.params import CheckpointParameters, TrainingParameters
from steps.train.plan.params import PlanParameters
from steps.train.report import TrainingReport
from tests.tiny_run import TinyRun
from tests.train.invariance import PLAIN, distance, learned
from tests.train.killed import KillPoint, Work, train_until
from tests.workers import when, workers

LOSS, ADAPTER = 1e-5, 1e-5
"""Float32's rounding, of losses (nats) and of what the adapter has learned (relative)."""

WORKER = "steps.train.distributed.worker"


@pytest.fixture(scope="module")
def run(tiny_run: TinyRun) -> TinyRun:
    """11 blocks in steps of 4: the last step of an epoch has three, of which the second process gets one."""
    blocks = DatasetDict(train=tiny_run.blocks["train"].select(range(11)), validation=tiny_run.blocks["validation"])
    training = TrainingParameters.model_validate(
        {**PLAIN, "batch_size": 4, "optimizer": "adamw_torch", "learning_rate": 1e-3}
    )
    return replace(tiny_run, blocks=blocks, training=training)


class Shared:
    """One piece of work, whose checkpoints lie in a folder of its own."""

    def __init__(self, run: TinyRun, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.store = Checkpoints(folder, "work", CheckpointParameters(every_steps=2))
        self.figures: dict[int, dict[str, float]] = {}

    def train(self, output: str, strategy: str | None = None, recompute: str = "auto") -> TrainingReport:
        """Train with two processes by the strategy, or with one where there is none."""
        distributed = {"processes": 2, "strategy": strategy} if strategy else {"processes": 1}
        self.report = self.run.train(
            self.folder / output,
            store=self.store,
            plan=PlanParameters.model_validate({"distributed": distributed, "recompute": recompute}),
            on_metrics=lambda step, figures: self.figures.setdefault(step, {}).update(figures),
        )
        return self.report

    def same(self, other: "Shared") -> bool:
        """Whether the same was learned, from as many tokens."""
        one, two = (learned(work.report, work.folder / "adapter") for work in (self, other))
        return distance(one, two).within(LOSS, ADAPTER) and self.report.tokens == other.report.tokens


@pytest.fixture(scope="module")
def alone(run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """The work by one process."""
    shared = Shared(run, tmp_path_factory.mktemp("alone"))
    shared.train("adapter")
    return shared


def test_ddp_learns_what_one_process_learns(
    run: TinyRun, alone: Shared, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The artifact has the same files, and the report the same course and the same counts."""
    shared, expected = Shared(run, tmp_path), alone.report
    report = shared.train("adapter", "ddp")
    assert shared.same(alone)
    same = ["epochs", "best_step", "planned_steps", "tokens_per_step", "initial_adapter_sha256", "stopped"]
    same += ["trainable_parameters", "total_parameters"]
    assert [getattr(report, name) for name in same] == [getattr(expected, name) for name in same]
    assert hashes(tmp_path / "adapter").keys() == hashes(alone.folder / "adapter").keys()
    assert shared.figures.keys() == alone.figures.keys()
    assert ("2 x ddp", "named by parameters.plan.distributed.strategy") in [
        (choice.value, choice.reason) for choice in report.choices
    ]
    assert capfd.readouterr().out.count("pre-flight passed") == 1  # the other processes are silent


def test_a_killed_process_ends_all_and_one_alone_goes_on(run: TinyRun, alone: Shared, tmp_path: Path) -> None:
    """FSDP2 up to the kill, then one process from the checkpoint that two have written in parts."""
    shared = Shared(run, tmp_path)
    started: list[psutil.Process] = []

    def kill() -> None:
        started.extend(workers(WORKER))
        started[1].kill()

    message = r"process 1 of 2 \(from 0\) failed first.*killed by signal 9.*run again to go on"
    with when((shared.store.folder / "step-00000004").is_dir, kill), pytest.raises(TrainingError, match=message):
        shared.train("killed", "fsdp")
    assert len(started) == 2
    assert not [process for process in started if process.is_running()]
    assert not list((tmp_path / "killed").iterdir())
    parts = {path.name for path in (shared.store.folder / "step-00000004").glob("*-of-00002.safetensors")}
    assert {name.split("-")[0] for name in parts} == {"weights", "best", "optimizer"}
    report = shared.train("adapter")
    assert report.resumed_from[0] >= 4
    assert shared.same(alone)


@pytest.mark.slow
def test_fsdp_learns_what_one_process_learns(run: TinyRun, alone: Shared, tmp_path: Path) -> None:
    """Layers are gathered again where they are recomputed."""
    shared = Shared(run, tmp_path)
    report = shared.train("adapter", "fsdp", "layers")
    assert shared.same(alone)
    assert report.total_parameters == alone.report.total_parameters


@pytest.mark.slow
def test_two_processes_go_on_from_what_one_or_two_left(run: TinyRun, alone: Shared, tmp_path: Path) -> None:
    """A SIGTERM is the first one's and all stop after the same step; FSDP2 goes on from DDP's checkpoint."""
    shared = Shared(run, tmp_path)

    def ask_to_go() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    for output, strategy, step in (("first", None, 2), ("second", "ddp", 4)):
        stop = when((shared.store.folder / f"step-{step:08d}").is_dir, ask_to_go)
        with stop, pytest.raises(TrainingError, match=r"training stopped after step \d+ of 9.*SIGTERM"):
            shared.train(output, strategy)
    report = shared.train("adapter", "fsdp")
    assert len(report.resumed_from) == 2
    assert shared.same(alone)


@pytest.mark.slow
def test_no_process_outlives_a_killed_parent(run: TinyRun, tmp_path: Path) -> None:
    """The parent is killed as by the system; its processes go with it, and one alone goes on."""
    plan = PlanParameters.model_validate({"distributed": {"processes": 2}})
    work = replace(Work.of(run, tmp_path), plan=plan)
    started: list[psutil.Process] = []

    def kill() -> None:
        started.extend(workers(WORKER))
        psutil.Process(started[0].ppid()).kill()

    with when((work.store().folder / "step-00000002").is_dir, kill):
        assert train_until(work, KillPoint("never"), tmp_path / "killed") == -signal.SIGKILL
    gone, alive = psutil.wait_procs(started, timeout=20)
    assert (len(gone), alive) == (2, [])
    assert replace(work, plan=None).train(tmp_path / "adapter").resumed_from


@pytest.mark.slow
def test_two_machines_share_a_training(
    run: TinyRun, alone: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here both are this one; machine 1 joins by the command of its own and ends with the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(FOLDER, str(tmp_path / "seen-by-all"))
    (tmp_path / "seen-by-all").mkdir()
    command = [sys.executable, "-m", "steps.train.distributed.join"]
    other = subprocess.Popen(command, env={**os.environ, "NODE_RANK": "1"})
    try:
        shared = Shared(run, tmp_path)
        shared.train("adapter", "ddp")
        (tmp_path / "seen-by-all" / ENDED).touch()
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()
    assert shared.same(alone)
