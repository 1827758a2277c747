"""Schedules of orchestrators that have their own: ZenML keeps a row for each, the orchestrator does what it says.

An orchestrator runs what was deployed: the configuration and the image of the moment. The same command again deploys
those of now.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import click
from zenml.client import Client
from zenml.config.schedule import Schedule as ZenMLSchedule
from zenml.enums import MetadataResourceTypes, StackComponentType
from zenml.models import RunMetadataResource, ScheduleResponse, ScheduleUpdate
from zenml.orchestrators import BaseOrchestrator
from zenml.utils.pagination_utils import depaginate

from pipelines.schedule import cronjobs
from pipelines.schedule.cron import next_due
from pipelines.schedule.plan import Listed, Schedule
from pipelines.stack import on_stack
from steps.errors import ConfigError, PipelineError

OURS = "qlora_schedule"
"""Metadata of a row: what it runs. A row without it is what a submission left that did not come to its end."""

REPLACED = ".replaced"
"""Ends the name of a row while the one that takes its place is submitted."""


def install(schedule: Schedule) -> str:
    """Deploy it; one of the same name is replaced once the new one is there, and stays if that fails.

    Raises:
        ConfigError: the configuration has problems, or the schedule asks for what an orchestrator cannot do.
        PipelineError: the orchestrator did not take it.
    """
    from pipelines.finetune import finetune

    if schedule.on_failure is not None:
        raise ConfigError(
            "--on-failure is for schedules of one machine; what runs on an orchestrator is watched there, on "
            "Kubernetes by an alert on failed Jobs (kube_job_status_failed)"
        )
    with on_stack(schedule.stack):
        stack, orchestrator = Client().active_stack.name, Client().active_stack.orchestrator
        with _told(f"{schedule.name}: stack {stack} did not take the schedule"):
            _clear(schedule.name, orchestrator)
            former = _row(schedule.name)
            if former is not None:
                _require_replaceable(former, orchestrator)
            pipeline = finetune.with_options(
                config_path=str(schedule.configuration),
                schedule=ZenMLSchedule(name=schedule.name, cron_expression=schedule.cron),
                settings=_named(orchestrator, schedule.name),
            )
            if former is not None:
                _rename(former, schedule.name + REPLACED)
            try:
                pipeline()
                row = _require(schedule.name)
                _note(row, {"configuration": str(schedule.configuration), "stack": stack})
            finally:
                _clear(schedule.name, orchestrator)  # the former one, or what this attempt left
    what = "replaced" if former is not None else "deployed"
    return f"{what} {schedule.name}: {schedule.cron} on stack {stack}, {_where(row, orchestrator)}"


def listed() -> list[Listed]:
    """Every schedule of ours that an orchestrator holds, in the active project."""
    return [_listed(row) for row in _rows() if OURS in row.run_metadata and not row.name.endswith(REPLACED)]


def pause(name: str) -> str:
    """Let it rest until it is resumed; a run that is going on goes on."""
    return _switch(name, active=False)


def resume(name: str) -> str:
    """Let a paused one run again."""
    return _switch(name, active=True)


def remove(name: str) -> str:
    """Forget it, and what submissions of it left; its runs, models and reports stay."""
    row = _require(name)
    orchestrator = _orchestrator(row)
    with _told(f"{name}: is not removed"):
        Client().delete_schedule(row.id)
        if orchestrator is not None:
            _clear(name, orchestrator)
    if orchestrator is None or not orchestrator.supports_schedule_deletion:
        return f"removed {name} from ZenML; in {_flavor(orchestrator)} it goes on until it is deleted there"
    return f"removed {name}"


def run_now(name: str) -> str:
    """Run it once, now, just as it runs at its time.

    Raises:
        ConfigError: its orchestrator has no such command here.
    """
    row = _require(name)
    orchestrator = _orchestrator(row)
    if orchestrator is None or orchestrator.flavor != "kubernetes":
        raise ConfigError(f"{name}: start it in {_flavor(orchestrator)} itself; run-now is for Kubernetes")

    with _told(f"{name}: did not start"):
        return f"started {name}: Job {cronjobs.run_now(orchestrator, row)}"


@contextmanager
def _told(what: str) -> Iterator[None]:
    """One line instead of what a cluster's client, or ZenML's server, raises."""
    try:
        yield
    except (PipelineError, click.ClickException):
        raise
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        raise PipelineError(f"{what}: {' '.join(said.split())[:300]}") from error


def _clear(name: str, orchestrator: BaseOrchestrator) -> None:
    """Remove what submissions left that did not come to their end: ZenML's row, and CronJobs that no row knows."""
    rows = {row.name: row for row in _rows()}
    row, former = rows.get(name), rows.get(name + REPLACED)
    if row is not None and OURS not in row.run_metadata:
        Client().delete_schedule(row.id, soft=False)
        row = None
    if former is not None and row is not None:
        Client().delete_schedule(former.id)
    elif former is not None:
        _rename(former, name)
    if orchestrator.flavor == "kubernetes":
        cronjobs.remove_unknown(orchestrator, name, _rows())


def _named(orchestrator: BaseOrchestrator, name: str) -> dict[str, Any]:
    """Settings by which what is deployed bears the schedule's name."""
    if orchestrator.flavor == "airflow":
        return {"orchestrator.airflow": {"dag_id": name}}  # its file is overwritten by the next of that name
    if orchestrator.flavor == "kubernetes":
        return cronjobs.labelled(name)
    return {}


def _require_replaceable(former: ScheduleResponse, orchestrator: BaseOrchestrator) -> None:
    there = _orchestrator(former)
    if there is None or there.supports_schedule_deletion or there.flavor == orchestrator.flavor == "airflow":
        return
    raise ConfigError(
        f"{former.name}: ZenML cannot take a schedule away from {there.flavor}; delete the former one there, then: "
        f"qlora schedule remove {former.name}"
    )


def _switch(name: str, *, active: bool) -> str:
    row = _require(name)
    orchestrator = _orchestrator(row)
    if orchestrator is None or not orchestrator.supports_schedule_updates:
        raise ConfigError(f"{name}: ZenML cannot pause or resume a schedule of {_flavor(orchestrator)}; do it there")
    if row.active != active:
        with _told(f"{name}: is not changed"):
            Client().update_schedule(row.id, active=active)
    return f"{name} {'runs again' if active else 'is paused'}"


def _rows() -> list[ScheduleResponse]:
    return depaginate(Client().list_schedules, hydrate=True)


def _row(name: str) -> ScheduleResponse | None:
    return next((row for row in _rows() if row.name == name), None)


def _require(name: str) -> ScheduleResponse:
    row = _row(name)
    if row is None:
        raise ConfigError(f"{name}: no orchestrator has such a schedule; see: qlora schedule list")
    return row


def _rename(row: ScheduleResponse, name: str) -> None:
    Client().zen_store.update_schedule(row.id, ScheduleUpdate(name=name))


def _note(row: ScheduleResponse, values: dict[str, str]) -> None:
    resource = RunMetadataResource(id=row.id, type=MetadataResourceTypes.SCHEDULE)
    Client().create_run_metadata(metadata={OURS: values}, resources=[resource])


def _orchestrator(row: ScheduleResponse) -> BaseOrchestrator | None:
    try:
        model = Client().get_stack_component(StackComponentType.ORCHESTRATOR, row.orchestrator_id)
    except KeyError:  # unregistered since
        return None
    return cast(BaseOrchestrator, BaseOrchestrator.from_model(model))


def _listed(row: ScheduleResponse) -> Listed:
    values = cast("dict[str, str]", row.run_metadata[OURS])
    cron = row.cron_expression or ""
    return Listed(
        name=row.name,
        where=_where(row, _orchestrator(row)),
        cron=cron,
        configuration=values["configuration"],
        stack=values["stack"],
        active=row.active,
        next_run=f"{next_due(cron, datetime.now(UTC)):%Y-%m-%d %H:%M} UTC",
        last_result=_last_result(row),
    )


def _last_result(row: ScheduleResponse) -> str:
    runs = Client().list_pipeline_runs(schedule_id=row.id, sort_by="desc:created", size=1).items
    return f"{runs[0].status} {runs[0].created:%Y-%m-%d %H:%M} UTC" if runs else ""


def _where(row: ScheduleResponse, orchestrator: BaseOrchestrator | None) -> str:
    """The flavour of the orchestrator, with the CronJob's name on Kubernetes."""
    if orchestrator is None or orchestrator.flavor != "kubernetes":
        return _flavor(orchestrator)

    return f"CronJob {cronjobs.name_of(row)}"


def _flavor(orchestrator: BaseOrchestrator | None) -> str:
    return "an orchestrator that is gone" if orchestrator is None else orchestrator.flavor
