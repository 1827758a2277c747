"""Model versions of ZenML's registry by the names that a command line gives them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from zenml.client import Client
from zenml.enums import ModelStages
from zenml.models import ArtifactVersionResponse, ModelVersionResponse, PipelineRunResponse
from zenml.utils.pagination_utils import depaginate

from steps.errors import ConfigError, ModelError

STAGES = tuple(stage.value for stage in ModelStages if stage not in (ModelStages.NONE, ModelStages.ARCHIVED))
"""production, staging and latest."""


def model_named_in(config: Path | None) -> str | None:
    """``model.name`` of a configuration file, None without a file.

    Raises:
        ConfigError: the file cannot be read or names no model.
    """
    if config is None:
        return None
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
        return str(values["model"]["name"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ConfigError(f"{config}: model.name cannot be read there ({str(error).splitlines()[0]})") from error


def model_version(model: str, version: str) -> ModelVersionResponse:
    """A version by its stage, number or name.

    Raises:
        ModelError: there is no such model or no such version.
    """
    client = Client()
    with suppress(KeyError):
        return client.get_model_version(model, int(version) if version.isdecimal() else version)
    require_model(model)
    versions = client.list_model_versions(model=model, size=50, hydrate=True).items
    has = _listed([f"{one.number}{f' ({one.stage})' if one.stage else ''}" for one in versions])
    raise ModelError(
        f"model {model} has no version {version!r}; it has {has}; a stage is given by promotion, or by: "
        f"qlora promote {model}:NUMBER"
    )


def version_in_stage(stage: str, model: str | None, name_it: str) -> ModelVersionResponse:
    """The version of the model in that stage; without a model's name of the only one that has any.

    Args:
        stage: ``production``, ``staging`` or ``latest``.
        model: its name.
        name_it: how a user names a model, for the error where several have one.

    Raises:
        ModelError: no model has one, or several have.
    """
    if model is not None:
        return model_version(model, stage)
    if stage == ModelStages.LATEST:
        names, first = set(model_names()), "run a pipeline"
    else:
        found = Client().list_model_versions(stage=stage, size=200, hydrate=True).items
        names, first = {one.model.name for one in found}, f"qlora promote MODEL:NUMBER --stage {stage}"
    if not names:
        raise ModelError(f"{stage}: no model has such a version; first: {first}")
    if len(names) > 1:
        raise ModelError(f"{stage}: several models have such a version ({_listed(sorted(names))}); {name_it}")
    return model_version(names.pop(), stage)


def model_names() -> list[str]:
    """Of every model."""
    return [one.name for one in depaginate(Client().list_models)]


def require_model(model: str) -> None:
    """Raise :class:`ModelError` unless ZenML has a model of that name."""
    if model not in (known := model_names()):
        raise ModelError(f"ZenML has no model {model!r}; it has {_listed(known)}")


def run_named(name: str, nor: str = "not") -> PipelineRunResponse:
    """A run by its name or id, or the beginning of one.

    Args:
        name: of the run.
        nor: how the error begins, where the name could have been something else too.

    Raises:
        ModelError: no run, or more than one, has that name.
    """
    try:
        return Client().get_pipeline_run(name)
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{name}: {nor} the name of one run; list them with: qlora runs; a model version is MODEL:NUMBER or "
            f"MODEL:production ({str(error).splitlines()[0]})"
        ) from error


def outputs_of(run: PipelineRunResponse) -> dict[str, ArtifactVersionResponse]:
    """What the steps of a run made, by name; cached steps count like those that ran."""
    return {name: found[0] for step in run.steps.values() for name, found in step.outputs.items()}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
