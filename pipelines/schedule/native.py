"""Schedules of orchestrators that have their own: ZenML keeps a row for each, the orchestrator does what it says.

An orchestrator runs what was deployed: the configuration and the image of the moment. The same command again deploys
those of now.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from pipelines.schedule.cron import next_due
from pipelines.schedule.plan import Listed, Schedule
from steps.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from zenml.models import ScheduleResponse
    from zenml.orchestrators import BaseOrchestrator

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
    from zenml.client import Client
    from zenml.config.schedule import Schedule as ZenMLSchedule

    from pipelines.finetune import finetune

    if schedule.on_failure is not None:
        raise ConfigError(
            "--on-failure is for schedules of one machine; what runs on an orchestrator is watched there, on "
            "Kubernetes by an alert on failed Jobs (kube_job_status_failed)"
        )
    with active_stack(schedule.stack) as (stack, orchestrator):
        _clear(schedule.name, orchestrator)
        former = _row(schedule.name)
        if former is not None and not _replaces(orchestrator):
            raise ConfigError(
                f"{schedule.name}: ZenML cannot take a schedule away from {orchestrator.flavor}; delete the former one "
                f"there, then: qlora schedule remove {schedule.name}"
            )
        pipeline = finetune.with_options(
            config_path=str(schedule.configuration),
            schedule=ZenMLSchedule(name=schedule.name, cron_expression=schedule.cron),
            settings=_named(orchestrator, schedule.name),
        )
        if former is not None:
            _rename(former, schedule.name + REPLACED)
        try:
            pipeline()
            row = _row(schedule.name)
            if row is None:
                raise ConfigError(f"{schedule.name}: ZenML did not keep the schedule")
            _note(row, {"configuration": str(schedule.configuration), "stack": stack})
        except Exception as error:
            _clear(schedule.name, orchestrator)  # gives a former one its name back
            kept = "; the former one stays" if former is not None else ""
            raise PipelineError(
                f"{schedule.name}: stack {stack} did not take the schedule ({_said(error)}){kept}"
            ) from error
        if former is not None:
            Client().delete_schedule(former.id)
        _clear(schedule.name, orchestrator)
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
    from zenml.client import Client

    row = _require(name)
    orchestrator = _orchestrator(row)
    Client().delete_schedule(row.id)
    if orchestrator is None or not orchestrator.supports_schedule_deletion:
        return f"removed {name} from ZenML; in {_flavor(orchestrator)} it goes on until it is deleted there"
    _clear(name, orchestrator)
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
    from pipelines.schedule import cronjobs

    return f"started {name}: Job {cronjobs.run_now(orchestrator, row)}"


@contextmanager
def active_stack(name: str | None) -> Iterator[tuple[str, "BaseOrchestrator"]]:
    """The stack by that name is active while the block runs, as with ``zenml pipeline run -s``."""
    from zenml.cli.utils import temporary_active_stack

    with temporary_active_stack(name) as stack:
        yield stack.name, stack.orchestrator


def _clear(name: str, orchestrator: "BaseOrchestrator") -> None:
    """Remove what submissions left that did not come to their end: ZenML's row, and CronJobs that no row knows."""
    from zenml.client import Client

    row, former = _row(name), _row(name + REPLACED)
    if row is not None and OURS not in row.run_metadata:
        Client().delete_schedule(row.id, soft=False)
        row = None
    if former is not None and row is not None:
        Client().delete_schedule(former.id)
    elif former is not None:
        _rename(former, name)
    if orchestrator.flavor == "kubernetes":
        from pipelines.schedule import cronjobs

        cronjobs.remove_unknown(orchestrator, name, _rows())


def _named(orchestrator: "BaseOrchestrator", name: str) -> dict[str, Any]:
    """Settings by which what is deployed bears the schedule's name."""
    if orchestrator.flavor == "airflow":
        return {"orchestrator.airflow": {"dag_id": name}}  # its file is overwritten by the next of that name
    if orchestrator.flavor == "kubernetes":
        from pipelines.schedule import cronjobs

        return cronjobs.labelled(name)
    return {}


def _replaces(orchestrator: "BaseOrchestrator") -> bool:
    return orchestrator.supports_schedule_deletion or orchestrator.flavor == "airflow"


def _switch(name: str, *, active: bool) -> str:
    from zenml.client import Client

    row = _require(name)
    orchestrator = _orchestrator(row)
    if orchestrator is None or not orchestrator.supports_schedule_updates:
        raise ConfigError(f"{name}: ZenML cannot pause or resume a schedule of {_flavor(orchestrator)}; do it there")
    if row.active != active:
        Client().update_schedule(row.id, active=active)
    return f"{name} {'runs again' if active else 'is paused'}"


def _rows() -> "list[ScheduleResponse]":
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    return depaginate(Client().list_schedules, hydrate=True)


def _row(name: str) -> "ScheduleResponse | None":
    return next((row for row in _rows() if row.name == name), None)


def _require(name: str) -> "ScheduleResponse":
    row = _row(name)
    if row is None:
        raise ConfigError(f"{name}: no orchestrator has such a schedule; see: qlora schedule list")
    return row


def _rename(row: "ScheduleResponse", name: str) -> None:
    from zenml.client import Client
    from zenml.models.v2.core.schedule import ScheduleUpdate

    Client().zen_store.update_schedule(row.id, ScheduleUpdate(name=name))


def _note(row: "ScheduleResponse", values: dict[str, str]) -> None:
    from zenml.client import Client
    from zenml.enums import MetadataResourceTypes
    from zenml.models import RunMetadataResource

    resource = RunMetadataResource(id=row.id, type=MetadataResourceTypes.SCHEDULE)
    Client().create_run_metadata(metadata={OURS: values}, resources=[resource])


def _orchestrator(row: "ScheduleResponse") -> "BaseOrchestrator | None":
    from zenml.client import Client
    from zenml.enums import StackComponentType
    from zenml.orchestrators import BaseOrchestrator

    try:
        model = Client().get_stack_component(StackComponentType.ORCHESTRATOR, row.orchestrator_id)
    except KeyError:  # unregistered since
        return None
    return cast("BaseOrchestrator", BaseOrchestrator.from_model(model))


def _listed(row: "ScheduleResponse") -> Listed:
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


def _last_result(row: "ScheduleResponse") -> str:
    from zenml.client import Client

    runs = Client().list_pipeline_runs(schedule_id=row.id, sort_by="desc:created", size=1).items
    return f"{runs[0].status} {runs[0].created:%Y-%m-%d %H:%M} UTC" if runs else ""


def _where(row: "ScheduleResponse", orchestrator: "BaseOrchestrator | None") -> str:
    """The flavour of the orchestrator, with the CronJob's name on Kubernetes."""
    if orchestrator is None or orchestrator.flavor != "kubernetes":
        return _flavor(orchestrator)
    from pipelines.schedule import cronjobs

    return f"CronJob {cronjobs.name_of(row)}"


def _flavor(orchestrator: "BaseOrchestrator | None") -> str:
    return "an orchestrator that is gone" if orchestrator is None else orchestrator.flavor


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
