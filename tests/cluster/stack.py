"""A ZenML stack on a cluster double: its real Kubernetes orchestrator, and the tests' own store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from zenml.client import Client
from zenml.enums import StackComponentType

from tests.cluster.api import CONTEXT, NAMESPACE, Cluster, running

STACK = "cluster-double"

ON_GPU = {"quantize", "train", "evaluate"}
"""Steps that ask for a GPU on every shipped stack."""

RECIPE = """
model: {name: nightly}
stack_settings: configs/stacks/%s.yaml
parameters:
  data: {sources: [{files: rows.jsonl}]}
  base_model: {folder: base}
"""
"""A recipe that runs on a shipped stack."""


@contextmanager
def cluster_stack(folder: Path) -> Iterator[Cluster]:
    """A cluster, and a stack of the name ``STACK`` whose pods share this machine's disk."""
    with running(folder) as cluster, pytest.MonkeyPatch.context() as patch:
        # the client looks at KUBECONFIG when it is imported, which may have happened
        patch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(cluster.kubeconfig))
        registered = _register()
        try:
            yield cluster
        finally:
            Client().delete_stack(registered, recursive=False)
            for kind in COMPONENTS:
                Client().delete_stack_component(STACK, kind)


COMPONENTS: dict[StackComponentType, tuple[str, dict[str, Any]]] = {
    StackComponentType.ORCHESTRATOR: (
        "kubernetes",
        {
            "kubernetes_context": CONTEXT,
            "kubernetes_namespace": NAMESPACE,
            "local": True,  # the store is a local folder
            "skip_local_validations": True,
            "job_monitoring_interval": 0.2,
            "interrupt_check_interval": 0.5,
        },
    ),
    StackComponentType.CONTAINER_REGISTRY: ("default", {"uri": "registry.example.com"}),
    StackComponentType.IMAGE_BUILDER: ("local", {}),
}


def _register() -> str:
    components: dict[StackComponentType, str] = {StackComponentType.ARTIFACT_STORE: "default"}
    for kind, (flavor, configuration) in COMPONENTS.items():
        Client().create_stack_component(STACK, flavor, kind, configuration)
        components[kind] = STACK
    Client().create_stack(STACK, components)
    return STACK
