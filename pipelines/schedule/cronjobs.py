"""What ZenML leaves to others about the CronJobs of its Kubernetes orchestrator: finding, removing, running one now."""

import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from zenml.integrations.kubernetes.constants import KUBERNETES_CRON_JOB_METADATA_KEY
from zenml.models import ScheduleResponse
from zenml.orchestrators import BaseOrchestrator

if TYPE_CHECKING:
    from kubernetes import client as k8s
    from zenml.integrations.kubernetes.orchestrators import KubernetesOrchestrator

LABEL = "qlora/schedule"
"""Label of the pod that runs a pipeline; its value is the schedule's name."""


def labelled(name: str) -> dict[str, Any]:
    """Settings by which a CronJob can be told even where its submission did not come to its end."""
    return {"orchestrator.kubernetes": {"orchestrator_pod_settings": {"labels": {LABEL: name}}}}


def remove_unknown(orchestrator: BaseOrchestrator, name: str, rows: Sequence[ScheduleResponse]) -> None:
    """Remove the CronJobs of a schedule that none of ZenML's rows knows."""
    known = {name_of(row) for row in rows}
    api, namespace = _api(orchestrator)
    for job in _labelled(api, namespace, name):
        if job.metadata.name not in known:
            api.delete_namespaced_cron_job(job.metadata.name, namespace)


def run_now(orchestrator: BaseOrchestrator, row: ScheduleResponse) -> str:
    """Make a Job of the CronJob's template, as ``kubectl create job --from`` does; gives its name."""
    from kubernetes import client as k8s

    api, namespace = _api(orchestrator)
    job = api.read_namespaced_cron_job(name_of(row), namespace)
    template = job.spec.job_template
    name = f"{job.metadata.name[:50]}-{uuid.uuid4().hex[:8]}"
    metadata = k8s.V1ObjectMeta(
        name=name,
        labels=template.metadata.labels,
        annotations={**(template.metadata.annotations or {}), "cronjob.kubernetes.io/instantiate": "manual"},
        owner_references=[
            k8s.V1OwnerReference(
                api_version="batch/v1", kind="CronJob", name=job.metadata.name, uid=job.metadata.uid, controller=True
            )
        ],
    )
    api.create_namespaced_job(namespace, k8s.V1Job(metadata=metadata, spec=template.spec))
    return name


def name_of(row: ScheduleResponse) -> str:
    """The CronJob that a row stands for; empty where there is none."""
    return str(row.run_metadata.get(KUBERNETES_CRON_JOB_METADATA_KEY, ""))


def _labelled(api: "k8s.BatchV1Api", namespace: str, name: str) -> "Iterator[k8s.V1CronJob]":
    for job in api.list_namespaced_cron_job(namespace).items:
        labels = job.spec.job_template.spec.template.metadata.labels or {}
        if labels.get(LABEL) == name:
            yield job


def _api(orchestrator: BaseOrchestrator) -> "tuple[k8s.BatchV1Api, str]":
    from kubernetes import client as k8s

    there = cast("KubernetesOrchestrator", orchestrator)
    return k8s.BatchV1Api(there.get_kube_client()), there.config.kubernetes_namespace
