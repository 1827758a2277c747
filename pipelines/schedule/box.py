"""Schedules on this machine: a systemd timer, or a crontab line where systemd does not run."""

from datetime import datetime

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
    name = schedule.name
    former = [one for one in store.entries() if one.schedule.name == name]
    if former and former[0].where != where:
        _take_out(name, former[0].where)
    entry = store.entry_of(schedule, where)
    output = crontab.install(entry) if where == "crontab" else systemd.install(entry)
    store.keep(entry)
    does = "changed" if former else "scheduled"
    return f"{name} is {does} ({where}): {schedule.configuration}; next run {_next(schedule)}; {output}"


def listed() -> list[Listed]:
    """Every schedule of this user on this machine."""
    return [_listed(entry) for entry in store.entries()]


def pause(name: str) -> str:
    """Let it rest until it is resumed."""
    where = store.entry_named(name).where
    crontab.pause(name) if where == "crontab" else systemd.pause(name, where)
    return f"{name} is paused; it goes on with: qlora schedule resume {name}"


def resume(name: str) -> str:
    """Let it run again at its times."""
    entry = store.entry_named(name)
    crontab.resume(name) if entry.where == "crontab" else systemd.resume(name, entry.where)
    return f"{name} is active; next run {_next(entry.schedule)}"


def remove(name: str) -> str:
    """Forget it; its runs, models and log stay."""
    _take_out(name, store.entry_named(name).where)
    store.forget(name)
    return f"{name} is removed; its runs and models stay"


def run_now(name: str) -> str:
    """Start a run of it as its time would."""
    where = store.entry_named(name).where
    follow = crontab.run_now(name) if where == "crontab" else systemd.run_now(name, where)
    return f"{name} is started; watch it with: {follow}"


def _take_out(name: str, where: str) -> None:
    crontab.remove(name) if where == "crontab" else systemd.remove(name, where)


def _listed(entry: store.Entry) -> Listed:
    schedule, where = entry.schedule, entry.where
    return Listed(
        name=schedule.name,
        where=where,
        cron=schedule.cron,
        configuration=str(schedule.configuration),
        stack=schedule.stack or "",
        active=crontab.active(schedule.name) if where == "crontab" else systemd.active(schedule.name, where),
        next_run=_next(schedule),
        last_result=store.noted(schedule.name),
    )


def _next(schedule: Schedule) -> str:
    return f"{next_due(schedule.cron, datetime.now()):%Y-%m-%d %H:%M}"
