"""The stacks that the project ships: ZenML's own classes know every key, and the pipeline compiles for each."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic_core import from_json
from zenml.client import Client
from zenml.config.compiler import Compiler
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import Step
from zenml.enums import StackComponentType
from zenml.stack import Flavor
from zenml.utils import source_utils

from pipelines.config import check_config
from pipelines.finetune import finetune
from pipelines.schedule import native
from pipelines.schedule.plan import Schedule
from steps.errors import ConfigError
from tests.cluster.objects import KUBERNETES
from tests.cluster.stack import ON_GPU, RECIPE

ROOT = Path(__file__).resolve().parents[2]
STACKS = sorted((ROOT / "configs" / "stacks").glob("*.yaml"))
NAMES = [path.stem for path in STACKS]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the recipes' paths start."""
    monkeypatch.chdir(ROOT)
    source_utils.set_custom_source_root(str(ROOT))


def flavor(kind: str, name: str) -> Flavor:
    """One of ZenML's own."""
    return Flavor.from_model(Client().get_flavor_by_name_and_type(name, StackComponentType(kind)))


def recipe(folder: Path, stack: str) -> Path:
    """A recipe for a stack."""
    path = folder / "recipe.yaml"
    path.write_text(RECIPE % stack, encoding="utf-8")
    return path


def components(stack: str) -> dict[str, dict[str, Any]]:
    """The components that a stack's file has."""
    values = yaml.safe_load((ROOT / "configs" / "stacks" / f"{stack}.yaml").read_text(encoding="utf-8"))
    return dict(values["components"])


@contextmanager
def registered(stack: str, **changes: Any) -> Iterator[str]:
    """The stack with its own orchestrator and the tests' artifact store, active for the block."""
    name = f"shipped-{stack}"
    ids: dict[StackComponentType, str] = {StackComponentType.ARTIFACT_STORE: "default"}
    for kind, one in components(stack).items():
        if kind == "artifact_store":
            continue
        configuration = {**one["configuration"], **(changes if kind == "orchestrator" else {})}
        own = one["name"] if kind == "step_operator" else name  # steps name it
        Client().create_stack_component(own, one["flavor"], StackComponentType(kind), configuration)
        ids[StackComponentType(kind)] = own
    Client().create_stack(name, ids)
    before = Client().active_stack_model.id
    Client().activate_stack(name)
    try:
        yield name
    finally:
        Client().activate_stack(before)
        for row in Client().list_schedules().items:
            Client().zen_store.delete_schedule(row.id, soft=False)
        Client().delete_stack(name, recursive=True)


def test_there_are_stacks() -> None:
    assert NAMES == ["airflow", "kubeflow", "kubernetes", "sagemaker", "vertex"]


@pytest.mark.parametrize("stack", NAMES)
def test_zenml_knows_every_key(stack: str, tmp_path: Path) -> None:
    """Without the packages of the integration: its settings and configurations need none."""
    for kind, one in components(stack).items():
        config = flavor(kind, one["flavor"]).config_class
        assert one["configuration"].keys() <= config.model_fields.keys(), f"{stack}: {kind}"
        config.model_validate(one["configuration"])
    known: dict[str, Any] = {}
    for kind in ("orchestrator", "step_operator"):
        if kind in components(stack):
            found = flavor(kind, components(stack)[kind]["flavor"])
            classes = found.config_class.__mro__
            known[f"{kind}.{found.name}"] = next(one for one in classes if one.__name__.endswith("Settings"))
    checked = check_config(recipe(tmp_path, stack), finetune.parameters, finetune.step_names, known)
    checked.require()
    assert checked.stack is not None
    used = {key for step in checked.stack.values["steps"].values() for key in step["settings"]}
    assert used <= {*known, "resources"}


@pytest.mark.parametrize("stack", NAMES)
def test_the_pipeline_compiles(stack: str, tmp_path: Path) -> None:
    """Where the packages of the integration are installed; ZenML imports the orchestrator then."""
    try:
        flavor("orchestrator", components(stack)["orchestrator"]["flavor"]).implementation_class  # noqa: B018 - imports
    except ImportError as error:
        pytest.skip(f"{stack}: {error}")
    with registered(stack):
        path = str(recipe(tmp_path, stack))
        pipeline = finetune.with_options(config_path=path)
        pipeline.prepare()
        configuration = PipelineRunConfiguration(steps=pipeline._run_args["step_configurations"])
        snapshot = Compiler().compile(pipeline=pipeline, stack=Client().active_stack, run_configuration=configuration)
        for name, step in snapshot.step_configurations.items():
            assert asks_for_a_gpu(stack, step) == (name in ON_GPU), name


def asks_for_a_gpu(stack: str, step: Step) -> bool:
    """As each stack does it."""
    active: Any = Client().active_stack
    if stack == "kubeflow":
        operator = active.step_operators.get(step.config.step_operator)
        return operator is not None and "nvidia.com/gpu" in operator.get_settings(step).pod_settings.resources["limits"]
    settings = active.orchestrator.get_settings(step)
    if stack == "airflow":
        return "nvidia.com/gpu" in str(settings.operator_args)
    if stack == "kubernetes":
        return "nvidia.com/gpu" in settings.pod_settings.resources["limits"]
    if stack == "sagemaker":
        return str(settings.instance_type).startswith("ml.g")
    return bool(settings.custom_job_parameters and settings.custom_job_parameters.accelerator_count)


def test_airflow_gets_a_dag(tmp_path: Path) -> None:
    """ZenML writes Airflow's file; each task's pod is valid, three of them ask for a GPU, a second call overwrites."""
    path, dags = recipe(tmp_path, "airflow"), tmp_path / "dags"
    with registered("airflow", local=True, dag_output_dir=str(dags)) as stack:  # local: the store is a folder
        native.install(Schedule("nightly", path, "0 3 * * *", stack))
        assert native.install(Schedule("nightly", path, "30 4 * * *", stack)).startswith("replaced nightly: 30 4")
        (file,) = dags.iterdir()
        dag = from_json(zipfile.ZipFile(file).read("config.json"))
        assert (file.name, dag["id"], dag["schedule"]) == ("nightly.zip", "nightly", "30 4 * * *")
        assert dag["dag_args"] == {"max_active_runs": 1}
        for task in dag["tasks"]:
            pod = task["operator_args"]["pod_template_dict"]
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
            (container,) = pod["spec"]["containers"]
            on_gpu = task["id"] in ON_GPU
            assert (container["resources"]["limits"].get("nvidia.com/gpu") == "1") == on_gpu, task["id"]
            assert ("nodeSelector" in pod["spec"]) == on_gpu
            assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/models", "/checkpoints"]
            assert len(pod["spec"]["volumes"]) == 2
            assert task["operator_args"]["retries"] == (8 if on_gpu else 2)
        with pytest.raises(ConfigError, match="ZenML cannot pause or resume a schedule of airflow; do it there"):
            native.pause("nightly")
        with pytest.raises(ConfigError, match="start it in airflow itself"):
            native.run_now("nightly")
        assert native.remove("nightly") == "removed nightly from ZenML; in airflow it goes on until it is deleted there"
