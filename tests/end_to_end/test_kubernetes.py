"""The scheduled pipeline on Kubernetes, to its end: ZenML's own orchestrator code against the cluster double."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from zenml.client import Client
from zenml.enums import ExecutionStatus

from pipelines.schedule import native
from pipelines.schedule.plan import Schedule
from tests.cluster.api import Cluster
from tests.cluster.stack import ON_GPU, STACK, cluster_stack
from tests.end_to_end.conftest import ROOT, STEPS, Workplace, loaded, ran

pytestmark = pytest.mark.slow

AT_MOST = 900
"""Seconds; a pod takes some 10 to start here."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster that runs what it is given."""
    monkeypatch.chdir(ROOT)
    with cluster_stack(tmp_path) as cluster:
        yield cluster


def wait(cluster: Cluster, job: str, preempted: str = "") -> None:
    """Until a Job has ended; preempts the first pod of the step ``preempted`` once it has written a checkpoint."""
    checkpoints = cluster.jobs.volume("qlora-checkpoints") / "qlora-pipeline" / "checkpoints"
    end = time.monotonic() + AT_MOST
    while time.monotonic() < end:
        if cluster.objects.read("jobs", job)["status"].get("conditions"):
            return
        if preempted and list(checkpoints.glob("*/step-*")):
            (pod,) = cluster.objects.list("pods", {"step_name": preempted})
            cluster.jobs.preempt(pod["metadata"]["name"])
            preempted = ""
        time.sleep(0.02)
    raise AssertionError(f"{job} has not ended")


def steps_of(jobs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The Jobs of steps by the step's name; the Job that runs the pipeline is none."""
    return {job["metadata"]["labels"]["step_name"]: job for job in jobs if "step_name" in job["metadata"]["labels"]}


def started(cluster: Cluster) -> str:
    """Start the schedule now; gives the Job's name."""
    return native.run_now("nightly").rsplit(" ", 1)[1]


def test_two_nights(cluster: Cluster, workplace: Workplace) -> None:
    """In the first the GPU's node is taken away in the middle of the training; in the second nothing is new."""
    training = {"seed": 23, "max_steps": 150, "evaluate_every": 50, "early_stopping": None}
    config = workplace.config(training=training, checkpoints={"every_steps": 5})
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    config.write_text(yaml.safe_dump({**values, "stack_settings": "configs/stacks/kubernetes.yaml"}), encoding="utf-8")
    native.install(Schedule("nightly", config, "0 3 * * *", STACK))

    wait(cluster, started(cluster), preempted="train")
    jobs = steps_of(cluster.objects.list("jobs", {}))
    assert set(jobs) == STEPS
    for name, job in jobs.items():
        assert job["status"]["conditions"][0]["type"] == "Complete", name
        (container,) = job["spec"]["template"]["spec"]["containers"]
        on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert on_gpu == (name in ON_GPU), name
    first, second = cluster.objects.list("pods", {"step_name": "train"})
    assert (first["status"]["phase"], second["status"]["phase"]) == ("Failed", "Succeeded")
    run = Client().list_pipeline_runs(sort_by="desc:created", hydrate=True).items[0]
    assert run.status == ExecutionStatus.COMPLETED
    assert run.schedule is not None
    report = loaded(run, "training_report")
    (resumed,) = report.resumed_from
    assert 5 <= resumed < 150
    assert "asked to end (SIGTERM or Ctrl-C)" in cluster.jobs.log(first["metadata"]["name"])
    assert not list(cluster.jobs.volume("qlora-checkpoints").rglob("step-*")), "an ended training removes its own"

    wait(cluster, started(cluster))
    run = Client().list_pipeline_runs(sort_by="desc:created", hydrate=True).items[0]
    assert (run.status, ran(run)) == (ExecutionStatus.COMPLETED, {"resolve"})
    assert len(steps_of(cluster.objects.list("jobs", {"run_id": str(run.id)}))) == 1, "what is cached has no pod"
    assert [one.last_result.split()[0] for one in native.listed()] == ["completed"]
    native.remove("nightly")
    assert (cluster.objects.list("cronjobs", {}), native.listed()) == ([], [])
