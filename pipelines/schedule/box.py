"""Schedules on this machine: a systemd timer, or a crontab line where systemd does not run."""

from datetime import datetime
from types import ModuleType

from pipelines.schedule import crontab, store, systemd
from pipelines.schedule.cron import next_due
from pipelines.schedule.plan import Listed, Schedule
from steps.errors import DeviceError

NOWHERE = (
    "neither systemd nor a crontab command is here to start runs; install and start cron, or let your own scheduler "
    "run, from this folder: zenml pipeline run pipelines.finetune.finetune -c CONFIG"
)


def install(schedule: Schedule) -> str:
    """Schedule it on this machine, from the present folder; one of the same name is replaced.

    Raises:
        DeviceError: nothing here starts programs at given times.
    """
    where = systemd.manager() or ("crontab" if crontab.available() else "")
    if not where:
        raise DeviceError(NOWHERE)
    former = next((one for one in store.entries() if one.schedule.name == schedule.name), None)
    if former is not None and former.where != where:
        _keeper(former).remove(former)
    entry = store.entry_of(schedule, where)
    output = _keeper(entry).install(entry)
    store.keep(entry)
    does = "changed" if former else "scheduled"
    return f"{schedule.name} is {does} ({where}): {schedule.configuration}; next run {_next(schedule)}; {output}"


def listed() -> list[Listed]:
    """Every schedule of this user on this machine."""
    return [_listed(entry) for entry in store.entries()]


def pause(name: str) -> str:
    """Let it rest until it is resumed."""
    entry = store.entry_named(name)
    _keeper(entry).pause(entry)
    return f"{name} is paused; it goes on with: qlora schedule resume {name}"


def resume(name: str) -> str:
    """Let it run again at its times."""
    entry = store.entry_named(name)
    _keeper(entry).resume(entry)
    return f"{name} is active; next run {_next(entry.schedule)}"


def remove(name: str) -> str:
    """Forget it; its runs, models and log stay."""
    entry = store.entry_named(name)
    _keeper(entry).remove(entry)
    store.forget(name)
    return f"{name} is removed; its runs and models stay"


def run_now(name: str) -> str:
    """Start a run of it as its time would."""
    entry = store.entry_named(name)
    return f"{name} is started; watch it with: {_keeper(entry).run_now(entry)}"


def _keeper(entry: store.Entry) -> ModuleType:
    """The module that has it; both have install, active, pause, resume, remove and run_now."""
    return crontab if entry.where == "crontab" else systemd


def _listed(entry: store.Entry) -> Listed:
    schedule = entry.schedule
    return Listed(
        name=schedule.name,
        where=entry.where,
        cron=schedule.cron,
        configuration=str(schedule.configuration),
        stack=schedule.stack or "",
        active=_keeper(entry).active(entry),
        next_run=_next(schedule),
        last_result=store.noted(schedule.name),
    )


def _next(schedule: Schedule) -> str:
    return f"{next_due(schedule.cron, datetime.now()):%Y-%m-%d %H:%M}"
