"""Schedules as lines of the user's crontab, where systemd does not run. Cron catches nothing up."""

import os
import shlex
import shutil
import subprocess

import psutil

from pipelines.schedule.commands import run
from pipelines.schedule.cron import portable
from pipelines.schedule.store import Entry, log_file
from steps.errors import DeviceError

PAUSED = "#paused "

NO_TABLE = ("no crontab for", "No such file or directory")
"""What ``crontab -l`` says where there is no table yet: cronie and Debian's cron, and busybox."""


DAEMONS = ("cron", "crond")
"""What the program that reads the table is called: Debian's, and cronie's and busybox's."""


def available() -> bool:
    """Whether there is a ``crontab`` command."""
    return shutil.which("crontab") is not None


def install(entry: Entry) -> str:
    """Put its line into the table instead of one of the same name; where its output goes."""
    _write([*_others(entry), line_of(entry)])
    idle = (
        ""
        if _runs()
        else "; no cron runs here that would read the table: start it, in a container by: service cron start"
    )
    return f"output: {log_file(entry.schedule.name)}{idle}"


def _runs() -> bool:
    return any(process.info["name"] in DAEMONS for process in psutil.process_iter(["name"]))


def active(entry: Entry) -> bool:
    """Whether its line is there and not commented out."""
    return any(_mark(entry) in line and not line.startswith(PAUSED) for line in _lines())


def pause(entry: Entry) -> None:
    """Comment its line out."""
    _write([*_others(entry), PAUSED + line_of(entry)])


def resume(entry: Entry) -> None:
    """Write its line again."""
    install(entry)


def remove(entry: Entry) -> None:
    """Take its line out of the table."""
    _write(_others(entry))


def run_now(entry: Entry) -> str:
    """Start a run that outlives this command; the command that shows its output."""
    name = entry.schedule.name
    with log_file(name).open("ab") as log:
        command = [entry.python, "-m", "pipelines.schedule.run", name]
        subprocess.Popen(command, cwd=entry.folder, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - the interpreter and name that were scheduled
    return f"tail -f {shlex.quote(str(log_file(name)))}"


def line_of(entry: Entry) -> str:
    """Its line; crontab(5) takes an unescaped per cent sign for the end of the command."""
    name = entry.schedule.name
    state = os.environ.get("XDG_STATE_HOME")
    variables = f"XDG_STATE_HOME={shlex.quote(state)} " if state else ""
    python, log = shlex.quote(entry.python), shlex.quote(str(log_file(name)))
    command = (
        f"cd {shlex.quote(str(entry.folder))} && {variables}{python} -m pipelines.schedule.run {name} >>{log} 2>&1"
    )
    return f"{portable(entry.schedule.cron)} {command} {_mark(entry)}".replace("%", "\\%")


def _mark(entry: Entry) -> str:
    """Tells its line from all others; the shell takes it for a comment."""
    return f"# qlora schedule {entry.schedule.name}."


def _lines() -> list[str]:
    """The table as it is; an error other than that there is none yet would cost the user his table."""
    try:
        return run("crontab", "-l").splitlines()
    except DeviceError as error:
        if any(text in str(error) for text in NO_TABLE):
            return []
        raise


def _others(entry: Entry) -> list[str]:
    return [line for line in _lines() if not line.endswith(_mark(entry))]


def _write(lines: list[str]) -> None:
    run("crontab", "-", given="".join(f"{line}\n" for line in lines))
