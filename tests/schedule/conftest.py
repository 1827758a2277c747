"""A machine whose systemctl and crontab are small programs that remember what they were told.

They are doubles, since real timers would outlive the tests and hardly any test machine lets one start them; the unit
files and calendar expressions are judged by the real systemd-analyze.
"""

import os
from pathlib import Path

import pytest

SYSTEMCTL = """#!/bin/sh
here=$(dirname "$0")
scope=system
[ "$1" = --user ] && { scope=user; shift; }
for last; do :; done
case $1 in
    is-system-running) cat "$here/systemd" ;;
    enable) touch "$here/$last.$scope" ;;
    disable) rm -f "$here/$last.$scope" ;;
    is-enabled) [ -e "$here/$last.$scope" ] && echo enabled || { echo disabled; exit 1; } ;;
esac
case $1 in is-*) ;; *) echo "$scope $*" >>"$here/told" ;; esac
"""

CRONTAB = """#!/bin/sh
table=$(dirname "$0")/table
case $1 in
    -l) cat "$table" 2>/dev/null || { echo "no crontab for you" >&2; exit 1; } ;;
    -) cat >"$table.new" && mv "$table.new" "$table" ;;
esac
"""


class Machine:
    """The doubles' folder, and where units go."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.units = folder / "units"
        self.state = folder / "state" / "qlora-pipeline" / "schedules"

    def has(self, *, systemd: str | None, crontab: bool = False) -> None:
        """Install the programs; ``systemd`` is what it says of itself, such as running or offline."""
        if systemd is not None:
            self._program("systemctl", SYSTEMCTL)
            (self.programs / "systemd").write_text(f"{systemd}\n")
        if crontab:
            self._program("crontab", CRONTAB)

    def _program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    @property
    def told(self) -> list[str]:
        """What systemctl was told to do, without questions."""
        path = self.programs / "told"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def table(self) -> list[str]:
        """The crontab's lines."""
        return (self.programs / "table").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine without either; a folder of its own for state, units and the user's configuration."""
    made = Machine(tmp_path)
    for name in ("sh", "cat", "dirname", "touch", "rm", "mv"):
        program = next(Path(folder, name) for folder in ("/usr/bin", "/bin") if Path(folder, name).exists())
        (made.programs / name).symlink_to(program)
    monkeypatch.setenv("PATH", str(made.programs))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("pipelines.schedule.systemd.SYSTEM_UNITS", made.units)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made
