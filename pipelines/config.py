"""The check of a run's configuration file: every mistake in it, found before anything runs.

ZenML itself drops an unknown key in silence, so every key is looked up here.
"""

import copy
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from zenml.config import ResourceSettings
from zenml.config.base_settings import BaseSettings
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import StepConfigurationUpdate
from zenml.enums import StackComponentType
from zenml.model.model import Model
from zenml.utils.settings_utils import get_general_settings, is_stack_component_setting_key

from pipelines.credentials import credentials_in
from pipelines.document import Document, KeyPath, Problem, read_document
from pipelines.rules import combined
from pipelines.schema import Homes, homes_of, shown, unknown_key, unknown_keys, wrong_values
from pipelines.stack_settings import EXAMPLE, RUN_PARTS, STACK_PARTS, STACK_SETTINGS, stack_document
from steps.errors import ConfigError
from steps.parameters import Parameters

Settings = Mapping[str, type[BaseSettings]]
"""Settings classes of a stack's components by their key, such as ``orchestrator``."""


class NotTriedError(ConfigError):
    """What would be looked at cannot be, and another error says why."""


@dataclass(frozen=True)
class Parameter:
    """One argument of the pipeline function."""

    model: type[Parameters]
    required: bool


M = TypeVar("M", bound=Parameters)


@dataclass(frozen=True)
class CheckedConfig:
    """A configuration file after its check."""

    document: Document
    parameters: Mapping[str, Parameters]
    """Those that are valid by themselves: all of them where there are no problems."""
    problems: Sequence[Problem]
    stack: Document | None = None
    """The file that ``stack_settings`` names: how the steps run on a stack."""

    def require(self) -> None:
        """Raise :class:`ConfigError` with one line for each problem if there is any."""
        if self.problems:
            raise self.document.error(self.problems)

    def valid(self, name: str, model: type[M]) -> M:
        """A valid parameter of the pipeline; :class:`NotTriedError` where it is not."""
        value = self.parameters.get(name)
        if not isinstance(value, model):
            raise NotTriedError(f"not tried, since parameters.{name} is not valid")
        return value


def check_config(
    path: Path,
    parameters: Mapping[str, Parameter],
    step_names: Sequence[str],
    component_settings: Settings | None = None,
) -> CheckedConfig:
    """Read and check a configuration file; see :meth:`CheckedConfig.require`.

    Args:
        path: the YAML file.
        parameters: the pipeline function's arguments by name.
        step_names: the names that may stand under ``steps:``.
        component_settings: settings classes of the stack's components; settings of others are left unchecked.

    Raises:
        ConfigError: the file cannot be read as a mapping, or there are problems in the file that ``stack_settings``
            names.
    """
    document = read_document(path)
    checker = _Checker(document, parameters, step_names, component_settings or {})
    credentials = list(credentials_in(document.values))
    problems = [*document.duplicates, *checker.top_level(), *checker.steps(), *checker.parameters()]
    problems += combined(checker.valid)
    problems = _without_values(credentials, problems)
    stack = stack_document(document)
    if stack is not None:
        of_stack = _Checker(stack, parameters, step_names, component_settings or {})
        found = [*stack.duplicates, *of_stack.stack_level(), *of_stack.steps()]
        found = _without_values(list(credentials_in(stack.values)), found)
        if found:
            raise stack.error(found)
    return CheckedConfig(document, checker.valid, problems, stack)


def _without_values(credentials: list[Problem], problems: list[Problem]) -> list[Problem]:
    """All of them, but at a credential's place only what says so: the others may show its value."""
    secret = {problem.path for problem in credentials}
    return [*credentials, *(problem for problem in problems if problem.path not in secret)]


class _Checker:
    """The parts of one check; they share the document and what is known about names."""

    def __init__(
        self,
        document: Document,
        parameters: Mapping[str, Parameter],
        step_names: Sequence[str],
        settings: Settings,
    ) -> None:
        self.values = document.values
        self.known = parameters
        self.step_names = step_names
        self.settings: Settings = {**get_general_settings(), **settings}
        self.homes = _homes(parameters, step_names)
        self.valid: dict[str, Parameters] = {}

    def top_level(self) -> Iterator[Problem]:
        """Keys and values at the root, without those of ``parameters`` and ``steps``."""
        names = [*PipelineRunConfiguration.model_fields, STACK_SETTINGS]
        for key, value in self.values.items():
            if key == STACK_SETTINGS:
                if not isinstance(value, str):
                    yield Problem((key,), f"needs the path of a file such as {EXAMPLE}, not {shown(value)}")
            elif key not in names:
                yield Problem((key,), unknown_key(key, names, self.homes))
            elif key == "settings":
                yield from self._settings(value, ("settings",))
            elif key not in ("parameters", "steps"):
                yield from _zenml_values(PipelineRunConfiguration, {key: value}, (), self.homes)
        model = self.values.get("model")
        if model is None or (isinstance(model, dict) and model.get("name") is None):
            yield Problem(("model", "name"), "missing; promote registers the result under it")
        yield from _run_name(self.values)

    def stack_level(self) -> Iterator[Problem]:
        """Keys and settings of a stack's file, without its ``steps``; ZenML reads and checks the stack's own parts."""
        for key in self.values:
            if key not in (*STACK_PARTS, *RUN_PARTS):
                yield Problem((key,), unknown_key(key, [*STACK_PARTS, *RUN_PARTS], self.homes))
        if "settings" in self.values:
            yield from self._settings(self.values["settings"], ("settings",))

    def steps(self) -> Iterator[Problem]:
        """Step names, and keys and values of each step's configuration."""
        steps = self.values.get("steps")
        if not isinstance(steps, dict):
            if steps is not None:
                yield Problem(("steps",), f"needs a mapping of step names, not {shown(steps)}")
            return
        for name, step in steps.items():
            path = ("steps", name)
            if name not in self.step_names:
                yield Problem(path, unknown_key(name, self.step_names, self.homes).replace("key", "step", 1))
            if not isinstance(step, dict):
                yield Problem(path, f"needs a mapping of keys, not {shown(step)}")
                continue
            if "parameters" in step:
                yield Problem((*path, "parameters"), "parameters stand under the top-level key parameters; move them")
            if "settings" in step:
                yield from self._settings(step["settings"], (*path, "settings"))
            plain = {key: value for key, value in step.items() if key not in ("parameters", "settings")}
            yield from _zenml_values(StepConfigurationUpdate, plain, path, self.homes)

    def _settings(self, settings: Any, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(settings, dict):
            yield Problem(path, f"needs a mapping of keys, not {shown(settings)}")
            return
        names = [*get_general_settings(), *StackComponentType.values()]
        for key, value in settings.items():
            if key in self.settings:
                yield from _zenml_values(self.settings[key], value, (*path, key), self.homes)
            elif not (isinstance(key, str) and is_stack_component_setting_key(key)):
                yield Problem((*path, key), unknown_key(key, names, self.homes))

    def parameters(self) -> Iterator[Problem]:
        """Names, types and values of the pipeline's parameters; those that are right go to ``self.valid``."""
        given = self.values.get("parameters", {})
        if not isinstance(given, dict):
            yield Problem(("parameters",), f"needs a mapping of {', '.join(self.known)}, not {shown(given)}")
            return
        for name in given:
            if name not in self.known:
                yield Problem(("parameters", name), unknown_key(name, list(self.known), self.homes))
        for name, parameter in self.known.items():
            path = ("parameters", name)
            if name not in given and parameter.required:
                yield Problem(path, f"missing; it holds {', '.join(parameter.model.model_fields)}")
                continue
            value = given.get(name, {})
            yield from unknown_keys(parameter.model, value, path, self.homes)
            try:
                self.valid[name] = parameter.model.model_validate(value)
            except ValidationError as error:
                yield from wrong_values(error, value, path)


def _zenml_values(model: type[BaseModel], value: Any, path: KeyPath, homes: Homes) -> Iterator[Problem]:
    """Unknown keys and wrong values against one of ZenML's own models."""
    if value is None:
        return
    yield from unknown_keys(model, value, path, homes)
    try:
        model.model_validate(copy.deepcopy(value))  # some of ZenML's validators write into their input
    except ValidationError as error:
        for problem in wrong_values(error, value, path):
            if problem.path != ("model", "name"):  # said once, by the check that knows why it is needed
                yield problem
    except (AttributeError, TypeError, KeyError) as error:  # from validators that expect a mapping
        yield Problem(path or tuple(value)[:1], f"ZenML cannot read this: {error}")


def _run_name(values: Mapping[Any, Any]) -> Iterator[Problem]:
    name, substitutions = values.get("run_name"), values.get("substitutions")
    if not isinstance(name, str):
        return
    valid = ["date", "time", *(substitutions if isinstance(substitutions, dict) else ())]
    try:
        used = [field for _, field, _, _ in string.Formatter().parse(name) if field is not None]
    except ValueError as error:
        yield Problem(("run_name",), f"{name!r} is not a name with {{placeholders}}: {error}")
        return
    for field in used:
        if field not in valid:
            yield Problem(("run_name",), f"unknown placeholder {{{field}}} (valid: {', '.join(valid)})")


def _homes(parameters: Mapping[str, Parameter], step_names: Sequence[str]) -> dict[str, list[str]]:
    """For each known name the full keys under which it belongs."""
    found = [(name, name) for name in PipelineRunConfiguration.model_fields]
    found += [(name, f"steps.{name}") for name in step_names]
    for name, parameter in parameters.items():
        found += [(name, f"parameters.{name}"), *homes_of(parameter.model, f"parameters.{name}")]
    found += homes_of(ResourceSettings, "settings.resources")
    found += homes_of(Model, "model")
    homes: dict[str, list[str]] = {}
    for name, home in found:
        homes.setdefault(name, []).append(home)
    return homes
