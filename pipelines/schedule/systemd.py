"""Schedules as systemd timers: the system's for root, else the user's own."""

import getpass
import os
from pathlib import Path

from platformdirs import user_config_path

from pipelines.schedule.commands import attempt, run
from pipelines.schedule.cron import on_calendar
from pipelines.schedule.store import Entry

SYSTEM_UNITS = Path("/etc/systemd/system")
LINGER = Path("/var/lib/systemd/linger")
"""A file of the user's name there: its units run although nobody is logged in."""

BUSY = 75
"""Exit code of a run that found its former one still going on: EX_TEMPFAIL of sysexits.h."""

RUNNING = ("running", "degraded", "starting", "initializing", "maintenance")


def manager() -> str:
    """``systemd`` or ``systemd --user``, whichever this user's timers belong to, empty where neither runs."""
    where = "systemd" if os.geteuid() == 0 else "systemd --user"
    state = attempt("systemctl", *_scope(where), "is-system-running")
    return where if state is not None and state.stdout.strip() in RUNNING else ""


def install(entry: Entry) -> str:
    """Write its two units and start its timer; where its output goes.

    A timer of the same name is stopped and forgets when it was last due, so that a new time is not caught up.
    """
    folder = _folder(entry)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in units(entry).items():
        (folder / file).write_text(text, encoding="utf-8")
    _tell(entry, "daemon-reload")
    _tell(entry, "stop", _timer(entry))
    resume(entry)
    lingers = entry.where == "systemd" or (LINGER / getpass.getuser()).exists()
    hint = "" if lingers else "; it runs while you are logged in, and always after: loginctl enable-linger"
    return f"output: {_journal(entry, '-u')}{hint}"


def active(entry: Entry) -> bool:
    """Whether its timer is started and will be at the next boot."""
    state = attempt("systemctl", *_scope(entry.where), "is-enabled", _timer(entry))
    return state is not None and state.stdout.strip() == "enabled"


def pause(entry: Entry) -> None:
    """Stop its timer, now and at the next boot."""
    _tell(entry, "disable", "--now", _timer(entry))


def resume(entry: Entry) -> None:
    """Start it; a time that went by during the pause is not caught up."""
    _forget_last_time(entry)
    _tell(entry, "enable", "--now", _timer(entry))


def remove(entry: Entry) -> None:
    """Stop its timer and delete its units and what systemd remembers of it; a run that is going on ends by itself."""
    pause(entry)
    _forget_last_time(entry)
    for file in (_timer(entry), _service(entry)):
        (_folder(entry) / file).unlink(missing_ok=True)
    _tell(entry, "daemon-reload")


def run_now(entry: Entry) -> str:
    """Start its service; the command that shows its output."""
    _tell(entry, "start", "--no-block", _service(entry))
    return _journal(entry, "-fu")


def units(entry: Entry) -> dict[str, str]:
    """Its two unit files by name. They hold no secret, since every user of the machine can read them."""
    name, system = entry.schedule.name, entry.where == "systemd"
    network = "Wants=network-online.target\nAfter=network-online.target\n" if system else ""
    user = f"User={getpass.getuser()}\n" if system else ""  # so that it has a home folder
    calendar = "".join(f"OnCalendar={text}\n" for text in on_calendar(entry.schedule.cron))
    command = " ".join(
        _quoted(word).replace("$", "$$") for word in [entry.python, "-m", "pipelines.schedule.run", name]
    )
    environment = {"PYTHONUNBUFFERED": "1"}
    if "XDG_STATE_HOME" in os.environ:
        environment["XDG_STATE_HOME"] = os.environ["XDG_STATE_HOME"]
    variables = " ".join(_quoted(f"{key}={value}") for key, value in environment.items())
    service = (
        f"[Unit]\nDescription=Retraining {name}\n{network}\n"
        f"[Service]\nType=oneshot\n{user}"
        f"WorkingDirectory={str(entry.folder).replace('%', '%%')}\n"
        f"Environment={variables}\nExecStart={command}\n"
        f"# a run found its former one still going on\nSuccessExitStatus={BUSY}\n"
    )
    timer = (
        f"[Unit]\nDescription=Retraining {name}\n\n"
        f"[Timer]\n{calendar}# a time that went by while the machine was off is caught up\nPersistent=true\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )
    return {_service(entry): service, _timer(entry): timer}


def _tell(entry: Entry, *command: str) -> None:
    run("systemctl", *_scope(entry.where), *command)


def _forget_last_time(entry: Entry) -> None:
    """So that nothing is caught up; fails where it never ran, which is as good."""
    attempt("systemctl", *_scope(entry.where), "clean", "--what=state", _timer(entry))


def _journal(entry: Entry, option: str) -> str:
    return " ".join(["journalctl", *_scope(entry.where), option, _unit(entry)])


def _quoted(word: str) -> str:
    """One word of a unit file (systemd.syntax(7)): quotes and backslashes escaped, specifiers off."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _scope(where: str) -> list[str]:
    return [] if where == "systemd" else ["--user"]


def _folder(entry: Entry) -> Path:
    return SYSTEM_UNITS if entry.where == "systemd" else user_config_path("systemd") / "user"


def _unit(entry: Entry) -> str:
    return f"qlora-{entry.schedule.name}"


def _timer(entry: Entry) -> str:
    return f"{_unit(entry)}.timer"


def _service(entry: Entry) -> str:
    return f"{_unit(entry)}.service"
