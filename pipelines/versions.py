"""Model versions of ZenML's registry by the names that a command line gives them."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from zenml.client import Client
from zenml.enums import ModelStages
from zenml.models import ModelVersionResponse

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
    try:
        return client.get_model_version(model, int(version) if version.isdecimal() else version)
    except KeyError:
        known = [one.name for one in client.list_models(size=50).items]
        if model not in known:
            raise ModelError(f"ZenML has no model {model!r}; it has {_listed(known)}") from None
        versions = client.list_model_versions(model=model, size=50, hydrate=True).items
        has = _listed([f"{one.number}{f' ({one.stage})' if one.stage else ''}" for one in versions])
        raise ModelError(
            f"model {model} has no version {version!r}; it has {has}; a stage is given by promotion, or by: "
            f"qlora promote {model}:NUMBER"
        ) from None


def version_in_stage(stage: str, model: str | None) -> ModelVersionResponse:
    """The version of the model in that stage; without a model's name of the only one that has any.

    Raises:
        ModelError: no model has one, or several have.
    """
    if model is not None:
        return model_version(model, stage)
    names = [one.name for one in Client().list_models(size=200).items]
    if stage != ModelStages.LATEST:
        found = Client().list_model_versions(stage=stage, size=200, hydrate=True).items
        names = [one.model.name for one in found]
    if len(names) != 1:
        has = (
            f"several models have one: {_listed(sorted(names))}; name the run's configuration with -c"
            if names
            else f"no model has one; promote a version with: qlora promote MODEL:NUMBER --stage {stage}"
        )
        raise ModelError(f"--model {stage}: {has}")
    return model_version(names[0], stage)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
