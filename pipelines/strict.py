"""A ZenML pipeline that refuses a configuration it does not wholly understand."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import click
from zenml.client import Client
from zenml.enums import ExecutionMode, ExecutionStatus
from zenml.models import PipelineRunResponse
from zenml.pipelines.pipeline_definition import Pipeline
from zenml.steps import BaseStep

from pipelines.config import CheckedConfig, Parameter, check_config
from pipelines.console import plain_errors, quiet_console
from pipelines.labels import label
from pipelines.stack_settings import RUN_PARTS, joined
from pipelines.summary import summarise
from steps.errors import ConfigError

STOPPED = "run the same again, which goes on after the last finished step, a training from its last checkpoint"


class StrictPipeline(Pipeline):
    """A pipeline whose configuration file is checked, key by key, before anything is compiled.

    ``zenml pipeline run`` calls :meth:`with_options` and then the result; so do tests and notebooks.
    """

    whole: "StrictPipeline | None" = None
    """The pipeline that this one is a part of: one configuration file serves both."""

    def check(self, path: Path) -> CheckedConfig:
        """Check a configuration file against this pipeline's parameters, its steps and the active stack."""
        return check_config(path, self.parameters, self.step_names, Client().active_stack.setting_classes)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The arguments of the entrypoint, each a parameter model; those of the whole where this is a part."""
        if self.whole is not None:
            return self.whole.parameters
        signature = inspect.signature(self.entrypoint, eval_str=True)
        return {
            name: Parameter(argument.annotation, required=argument.default is inspect.Parameter.empty)
            for name, argument in signature.parameters.items()
        }

    @property
    def step_names(self) -> list[str]:
        """The steps that the entrypoint's code refers to: known even where the parameters are not valid."""
        if self.whole is not None:
            return self.whole.step_names
        names = inspect.getclosurevars(self.entrypoint)
        used = {**names.globals, **names.nonlocals}.values()
        return [value.name for value in used if isinstance(value, BaseStep)]

    def with_options(self, *args: Any, **kwargs: Any) -> Self:
        """A copy with the given options, which are those of ZenML's pipelines.

        Raises:
            ConfigError: the configuration file has problems.
        """
        options = inspect.signature(super().with_options).bind(*args, **kwargs).arguments
        with plain_errors():
            if options.get("config_path") is not None:
                config = self.check(Path(options["config_path"]))
                config.require()
                if config.stack is not None:
                    for part in RUN_PARTS:
                        kwargs[part] = joined(config.stack, config.document, part, kwargs.get(part))
            return cast(Self, super().with_options(*args, **kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> PipelineRunResponse | None:
        """Run the pipeline on the active stack.

        Raises:
            ConfigError: neither a configuration file nor the arguments give the required parameters.
            PipelineError: a step found its input unusable.
        """
        with plain_errors():
            absent = {*self.missing_parameters} - kwargs.keys()
            missing = [name for name, parameter in self.parameters.items() if parameter.required and name in absent]
            if missing and not args:
                raise ConfigError(
                    f"{self.name}: no configuration gives {', '.join(missing)}; "
                    "name a file with -c, such as -c configs/quickstart.yaml"
                )
            quiet_console()
            self._end_as_the_stack_can()
            try:
                run = super().__call__(*args, **kwargs)
            except KeyboardInterrupt:
                click.echo(f"stopped by Ctrl-C; {STOPPED}", err=True)
                raise
        if run is not None and run.status == ExecutionStatus.COMPLETED:
            label(run)
            click.echo(summarise(run))
        return run

    def _end_as_the_stack_can(self) -> None:
        """Most orchestrators cannot end other steps when one has failed; what follows from it never starts anywhere."""
        if self.configuration.execution_mode not in Client().active_stack.orchestrator.supported_execution_modes:
            self.configure(execution_mode=ExecutionMode.CONTINUE_ON_FAILURE)


def strict_pipeline(entrypoint: Callable[..., Any]) -> StrictPipeline:
    """Make a strict pipeline of ``entrypoint``, whose arguments are all parameter models."""
    pipeline = StrictPipeline(
        name=entrypoint.__name__,
        entrypoint=entrypoint,
        execution_mode=ExecutionMode.FAIL_FAST,  # so that the step's own error reaches the caller
    )
    pipeline.__doc__ = entrypoint.__doc__
    return pipeline


def part_of(whole: StrictPipeline) -> Callable[[Callable[..., Any]], StrictPipeline]:
    """Make a strict pipeline that runs some steps of ``whole`` with the same configuration file.

    The file is checked in full; the entrypoint takes the parameters that it uses and leaves the others to ``**_``.
    """

    def make(entrypoint: Callable[..., Any]) -> StrictPipeline:
        pipeline = strict_pipeline(entrypoint)
        pipeline.whole = whole
        return pipeline

    return make
