"""The manifests that the project ships, against Kubernetes' own schemas and against the stack that uses them."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
import zenml
from click.testing import CliRunner
from zenml.cli.stack import import_stack
from zenml.client import Client
from zenml.enums import StackComponentType

from tests.cluster.objects import KUBERNETES

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "docker" / "kubernetes").glob("*.yaml"))
STACK = ROOT / "configs" / "stacks" / "kubernetes.yaml"


def objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_manifest_is_valid(path: Path) -> None:
    for one in objects(path):
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
        if one["kind"] == "Secret":
            assert not {"data", "stringData"} & one.keys(), "no value belongs into the repository"


def test_what_the_stack_names_is_there() -> None:
    stack = yaml.safe_load(STACK.read_text(encoding="utf-8"))
    settings = stack["settings"]["orchestrator.kubernetes"]
    pod = settings["pod_settings"]
    named = {("ServiceAccount", settings["service_account_name"])}
    named |= {("Secret", source["secretRef"]["name"]) for source in pod["env_from"]}
    named |= {("PersistentVolumeClaim", one["persistentVolumeClaim"]["claimName"]) for one in pod["volumes"]}
    namespace = stack["components"]["orchestrator"]["configuration"]["kubernetes_namespace"]
    there = {(one["kind"], one["metadata"]["name"]): one["metadata"] for path in FILES for one in objects(path)}
    assert ("Namespace", namespace) in there
    for one in named:
        assert there[one]["namespace"] == namespace
    environment = {one["name"]: one["value"] for one in pod["env"]}
    assert {environment["HF_HOME"], environment["XDG_CACHE_HOME"]} == {one["mountPath"] for one in pod["volume_mounts"]}


def test_zenml_imports_the_stack(tmp_path: Path) -> None:
    """As the file's first lines say; under other names, since the tests' store is shared."""
    values = yaml.safe_load(STACK.read_text(encoding="utf-8"))
    assert values["zenml_version"] == zenml.__version__
    for component in values["components"].values():
        component["name"] = "imported"
    copy = tmp_path / "imported.yaml"
    copy.write_text(yaml.safe_dump({**values, "stack_name": "imported"}), encoding="utf-8")
    secret = values["components"]["artifact_store"]["configuration"]["authentication_secret"]
    Client().create_secret(secret, {"aws_access_key_id": "x", "aws_secret_access_key": "y"})
    try:
        result = CliRunner().invoke(import_stack, [str(copy)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        stack = Client().get_stack("imported")
        flavors = {kind: components[0].flavor_name for kind, components in stack.components.items()}
        assert flavors == {
            StackComponentType.ORCHESTRATOR: "kubernetes",
            StackComponentType.ARTIFACT_STORE: "s3",
            StackComponentType.CONTAINER_REGISTRY: "default",
            StackComponentType.IMAGE_BUILDER: "local",
        }
        Client().delete_stack("imported", recursive=True)
    finally:
        Client().delete_secret(secret)
