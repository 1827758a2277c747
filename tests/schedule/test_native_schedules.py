"""Schedules on ZenML's Kubernetes orchestrator: what is submitted to the cluster double, and what is left there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.orchestrators import BaseOrchestrator
from zenml.utils import source_utils

from pipelines.cli import main
from pipelines.finetune import finetune
from pipelines.schedule import native
from pipelines.schedule.plan import Schedule
from steps.errors import ConfigError, PipelineError
from tests.cluster.api import Cluster
from tests.cluster.objects import KUBERNETES
from tests.cluster.stack import ON_GPU, RECIPE, STACK, cluster_stack

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster with its stack for the module."""
    source_utils.set_custom_source_root(str(ROOT))
    with cluster_stack(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with nothing scheduled before and after."""
    monkeypatch.chdir(ROOT)
    yield shared_cluster
    shared_cluster.fault = None
    for row in Client().list_schedules().items:
        Client().delete_schedule(row.id, soft=False)
    shared_cluster.objects.stored.clear()
    shared_cluster.objects.submitted.clear()


@pytest.fixture
def nightly(tmp_path: Path) -> Schedule:
    """A schedule of a recipe with the shipped settings for Kubernetes."""
    path = tmp_path / "nightly.yaml"
    path.write_text(RECIPE % "kubernetes", encoding="utf-8")
    return Schedule("nightly", path, "0 3 * * *", STACK)


def cron_jobs(cluster: Cluster) -> dict[str, str]:
    """The CronJobs in the cluster: name and when."""
    return {job["metadata"]["name"]: job["spec"]["schedule"] for job in cluster.objects.list("cronjobs", {})}


def rows() -> dict[str, str | None]:
    """ZenML's rows: name and when."""
    return {row.name: row.cron_expression for row in Client().list_schedules().items}


def test_a_cron_job_is_deployed(cluster: Cluster, nightly: Schedule) -> None:
    said = native.install(nightly)
    (manifest,) = cluster.objects.submitted
    assert manifest["metadata"]["name"] in said
    spec = manifest["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == (
        "0 3 * * *",
        "Forbid",
        3600,
    )
    pod = spec["jobTemplate"]["spec"]["template"]
    assert pod["metadata"]["labels"]["qlora/schedule"] == "nightly"
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["serviceAccountName"] == "qlora-pipeline"
    assert container["image"] == "registry.example.com/qlora-pipeline:1.0.0"
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["ZENML_ACTIVE_STACK_ID"] == str(Client().get_stack(STACK).id)
    assert Client().active_stack_model.name == "default"
    (one,) = native.listed()
    assert (one.name, one.cron, one.stack, one.active) == ("nightly", "0 3 * * *", STACK, True)
    assert one.configuration == str(nightly.configuration)
    assert one.next_run.endswith("03:00 UTC")


def pods_of_steps(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The pod of each step as ZenML's own functions make it of the snapshot that the CronJob runs."""
    from kubernetes import client as k8s
    from zenml.integrations.kubernetes.manifest_utils import build_pod_manifest

    (manifest,) = cluster.objects.submitted
    (container,) = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    snapshot = Client().get_snapshot(container["args"][-1])
    orchestrator = BaseOrchestrator.from_model(Client().get_stack_component(StackComponentType.ORCHESTRATOR, STACK))
    pods = {}
    for name, step in snapshot.step_configurations.items():
        settings: Any = orchestrator.get_settings(step)
        pod = build_pod_manifest(
            pod_name=name,
            image_name="image",
            command=["true"],
            args=[],
            privileged=settings.privileged,
            pod_settings=settings.pod_settings,
            service_account_name=settings.service_account_name,
            termination_grace_period_seconds=settings.pod_stop_grace_period,
        )
        pods[name] = k8s.ApiClient().sanitize_for_serialization(pod)
    return pods


def test_only_three_steps_ask_for_a_gpu(cluster: Cluster, nightly: Schedule) -> None:
    native.install(nightly)
    pods = pods_of_steps(cluster)
    assert set(pods) == set(finetune.step_names) - {"export"}
    for name, pod in pods.items():
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        (container,) = pod["spec"]["containers"]
        gpus = container["resources"]["limits"].get("nvidia.com/gpu")
        assert gpus == ("1" if name in ON_GPU else None), name
        assert ("nodeSelector" in pod["spec"], "tolerations" in pod["spec"]) == (name in ON_GPU, name in ON_GPU), name
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/models", "/checkpoints"}
        assert container["envFrom"] == [{"secretRef": {"name": "qlora-secrets", "optional": True}}]
        assert {"HF_HOME", "XDG_CACHE_HOME"} <= {one["name"] for one in container["env"]}
        assert pod["spec"]["terminationGracePeriodSeconds"] == 120
        assert pod["spec"]["securityContext"] == {"fsGroup": 10001}


def test_the_same_command_again_changes_and_never_doubles(cluster: Cluster, nightly: Schedule) -> None:
    native.install(nightly)
    (first,) = cron_jobs(cluster)
    later = Schedule("nightly", nightly.configuration, "30 4 * * *", STACK)
    assert native.install(later).startswith("replaced nightly: 30 4 * * *")
    (second,) = cron_jobs(cluster)
    assert second != first
    assert cron_jobs(cluster) == {second: "30 4 * * *"}
    assert rows() == {"nightly": "30 4 * * *"}
    assert [one.cron for one in native.listed()] == ["30 4 * * *"]


@pytest.mark.parametrize("fault", ["refused", "answer lost"])
def test_a_failed_submission_leaves_nothing(cluster: Cluster, nightly: Schedule, fault: str) -> None:
    cluster.fault = fault
    with pytest.raises(PipelineError, match="nightly: stack cluster-double did not take the schedule: "):
        native.install(nightly)
    assert (cron_jobs(cluster), rows()) == ({}, {})
    cluster.fault = None
    native.install(nightly)
    assert list(rows()) == ["nightly"]


def test_a_failed_replacement_leaves_the_former_one(cluster: Cluster, nightly: Schedule) -> None:
    native.install(nightly)
    before = cron_jobs(cluster)
    cluster.fault = "answer lost"
    with pytest.raises(PipelineError, match=r"did not take the schedule: .*etcdserver: request timed out"):
        native.install(Schedule("nightly", nightly.configuration, "30 4 * * *", STACK))
    assert cron_jobs(cluster) == before
    assert rows() == {"nightly": "0 3 * * *"}
    assert native.pause("nightly") == "nightly is paused"


def test_what_a_killed_submission_left_is_cleaned(cluster: Cluster, nightly: Schedule) -> None:
    """Killed between ZenML's row and the end: the former row has its other name, and the new CronJob is unknown."""
    native.install(nightly)
    former = cron_jobs(cluster)
    row = native._row("nightly")
    assert row is not None
    native._rename(row, "nightly" + native.REPLACED)
    copy = {**cluster.objects.submitted[0], "metadata": {"name": "qlora-00000000-finetune"}}
    cluster.objects.create("cronjobs", copy)
    native.install(Schedule("nightly", nightly.configuration, "30 4 * * *", STACK))
    assert rows() == {"nightly": "30 4 * * *"}
    assert list(cron_jobs(cluster).values()) == ["30 4 * * *"]
    assert not cron_jobs(cluster).keys() & former.keys()


def test_other_schedules_are_left_alone(cluster: Cluster, nightly: Schedule) -> None:
    native.install(nightly)
    native.install(Schedule("weekly", nightly.configuration, "0 5 * * sun", STACK))
    native.remove("nightly")
    assert list(cron_jobs(cluster).values()) == ["0 5 * * sun"]
    assert [one.name for one in native.listed()] == ["weekly"]


def test_pause_and_resume(cluster: Cluster, nightly: Schedule) -> None:
    native.install(nightly)
    (name,) = cron_jobs(cluster)
    for action, active in ((native.pause, False), (native.pause, False), (native.resume, True)):
        action("nightly")
        assert cluster.objects.read("cronjobs", name)["spec"]["suspend"] is not active
        assert [one.active for one in native.listed()] == [active]


def test_errors_name_the_way_out(cluster: Cluster, nightly: Schedule) -> None:
    with pytest.raises(ConfigError, match="no orchestrator has such a schedule; see: qlora schedule list"):
        native.remove("weekly")
    with pytest.raises(ConfigError, match="--on-failure is for schedules of one machine"):
        native.install(Schedule("nightly", nightly.configuration, "0 3 * * *", STACK, "mail"))
    assert cluster.objects.submitted == []


def test_a_cluster_that_is_down_changes_nothing(cluster: Cluster, nightly: Schedule) -> None:
    native.install(nightly)
    before = cron_jobs(cluster)
    cluster.fault = "down"
    with pytest.raises(PipelineError, match=r"^nightly: stack cluster-double did not take the schedule: \(503\)"):
        native.install(nightly)
    for action in (native.pause, native.run_now, native.remove):
        with pytest.raises(PipelineError, match=r"^nightly: .*: \(503\)"):
            action("nightly")
    assert cron_jobs(cluster) == before
    assert rows() == {"nightly": "0 3 * * *"}
    assert [one.active for one in native.listed()] == [True]


def test_the_command_line_chooses_the_cluster(
    cluster: Cluster, nightly: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the stack; this machine has no schedules of its own, as far as it may look here."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    ask = ["schedule", "-c", str(nightly.configuration), "--name", "nightly", "--cron", "0 3 * * *", "--stack", STACK]
    for arguments, said in (
        (ask, "deployed nightly: 0 3 * * *"),
        (ask, "replaced nightly: 0 3 * * *"),
        (["schedule", "list"], "CronJob qlora-"),
        (["schedule", "pause", "nightly"], "nightly is paused"),
        (["schedule", "remove", "nightly"], "removed nightly"),
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        assert said in result.output
    assert (cron_jobs(cluster), rows()) == ({}, {})


def test_a_misspelt_setting_of_the_stack_is_found(cluster: Cluster, nightly: Schedule, tmp_path: Path) -> None:
    """Pod settings, which ZenML itself would drop in silence, are checked where the stack has them."""
    settings: dict[str, Any] = {"orchestrator.kubernetes": {"pod_settings": {"tolerance": []}}}
    stack = tmp_path / "stack.yaml"
    stack.write_text(yaml.safe_dump({"steps": {"train": {"settings": settings}}}), encoding="utf-8")
    recipe = nightly.configuration.read_text(encoding="utf-8")
    nightly.configuration.write_text(recipe.replace("configs/stacks/kubernetes.yaml", str(stack)), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"stack.yaml:6: .*pod_settings.tolerance: unknown key"):
        native.install(nightly)
    assert rows() == {}
