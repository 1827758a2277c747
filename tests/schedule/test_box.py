"""A timer or a crontab line is there once, changes, rests, comes back and goes."""

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.schedule import box, store, systemd
from pipelines.schedule.plan import Schedule, name_of
from steps.errors import ConfigError, DeviceError
from tests.schedule.conftest import Machine

ANALYZE = shutil.which("systemd-analyze")
OTHERS = ["MAILTO=me", "5 4 * * * backup --all", "# qlora schedule of old"]


def nightly(cron: str = "0 3 * * *", name: str = "nightly", on_failure: str | None = None) -> Schedule:
    return Schedule(name, Path("/data/nightly.yaml"), cron, None, on_failure)


@pytest.mark.parametrize("state", ["running", "degraded"])
def test_a_timer_is_there_once_and_changes(machine: Machine, state: str) -> None:
    machine.has(systemd=state, crontab=True)
    said = box.install(nightly())
    assert said.startswith("nightly is scheduled (systemd): /data/nightly.yaml; next run ")
    assert said.endswith(" 03:00; output: journalctl -u qlora-nightly")
    assert "nightly is changed" in box.install(nightly("30 4 * * mon"))
    assert sorted(path.name for path in machine.units.iterdir()) == ["qlora-nightly.service", "qlora-nightly.timer"]
    timer = (machine.units / "qlora-nightly.timer").read_text()
    assert [line for line in timer.splitlines() if "=" in line and "Description" not in line] == [
        "OnCalendar=Mon *-*-* 4:30:00",
        "Persistent=true",
        "WantedBy=timers.target",
    ]
    once = ["daemon-reload", "stop", "clean --what=state", "enable --now"]
    assert machine.told == [
        f"system {told} qlora-nightly.timer".replace("reload qlora-nightly.timer", "reload") for told in once * 2
    ]
    (one,) = box.listed()
    assert (one.where, one.cron, one.active, one.last_result) == ("systemd", "30 4 * * mon", True, "")


def test_a_timer_rests_comes_back_runs_and_goes(machine: Machine) -> None:
    machine.has(systemd="running")
    box.install(nightly())
    box.install(nightly(name="other"))
    assert "qlora schedule resume nightly" in box.pause("nightly")
    assert {one.name: one.active for one in box.listed()} == {"nightly": False, "other": True}
    assert "next run" in box.resume("nightly")
    assert {one.name: one.active for one in box.listed()} == {"nightly": True, "other": True}
    assert box.run_now("nightly") == "nightly is started; watch it with: journalctl -fu qlora-nightly"
    assert machine.told[-1] == "system start --no-block qlora-nightly.service"
    box.remove("nightly")
    assert [one.name for one in box.listed()] == ["other"]
    assert {path.stem for path in machine.units.iterdir()} == {"qlora-other"}
    assert machine.told[-1] == "system daemon-reload"
    assert [path.name for path in machine.state.iterdir()] == ["other.json"]


def test_an_ordinary_users_timer_is_his_own(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.has(systemd="running")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(systemd, "LINGER", tmp_path)
    assert "journalctl --user -u qlora-nightly; it runs while you are logged in" in box.install(nightly())
    service = (tmp_path / "config" / "systemd" / "user" / "qlora-nightly.service").read_text()
    assert "User=" not in service
    assert "network-online" not in service, "the user's manager has no such target"
    assert {told.split()[0] for told in machine.told} == {"user"}


@pytest.mark.skipif(ANALYZE is None, reason="systemd's own check is the judge")
@pytest.mark.parametrize("where", ["systemd", "systemd --user"])
def test_systemd_takes_the_units(machine: Machine, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'a "folder", 100%c $HOME'
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, text in systemd.units(store.entry_of(nightly("0 3 1 * mon"), where)).items():
        (tmp_path / name).write_text(text)
    scope = ["--user"] if where == "systemd --user" else []
    files = [str(tmp_path / f"qlora-nightly.{kind}") for kind in ("timer", "service")]
    command = [str(ANALYZE), *scope, "verify", "--man=no", *files]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "qlora-nightly.timer").write_text("[Timer]\nOnCalendar=sometimes\n[Install]\nWantedBy=timers.target\n")
    assert "sometimes" in subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr


def test_a_crontab_line_where_systemd_does_not_run(machine: Machine) -> None:
    machine.has(systemd="offline", crontab=True)
    (machine.programs / "table").write_text("".join(f"{line}\n" for line in OTHERS))
    box.install(nightly("0 3 * * fri-sun"))
    assert "nightly is changed (crontab)" in box.install(nightly("0 4 * * fri-sun"))
    box.install(nightly(name="night"))
    *others, line, _ = machine.table
    assert others == OTHERS
    assert line.startswith("0 4 * * 0,5,6 cd ")
    assert f">>{machine.state / 'nightly.log'} 2>&1 # qlora schedule nightly." in line
    assert machine.told == []
    box.pause("nightly")
    assert {one.name: one.active for one in box.listed()} == {"nightly": False, "night": True}
    assert machine.table[-1] == f"#paused {line}"
    box.resume("nightly")
    assert [line for line in machine.table if "nightly." in line] == [line]
    box.remove("nightly")
    box.remove("night")
    assert machine.table == OTHERS
    assert box.listed() == []


def test_the_crontab_line_does_what_it_says(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cron hands to the shell: the text up to an unescaped per cent sign, escapes taken off."""
    machine.has(systemd=None, crontab=True)
    folder = tmp_path / "50% of it's"
    folder.mkdir()
    python = machine.programs / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$XDG_STATE_HOME" "$*"\n')
    python.chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.executable", str(python))
    box.install(nightly())
    command = machine.table[0].split(maxsplit=5)[5].replace("\\%", "\0")
    assert "%" not in command
    subprocess.run(["/bin/sh", "-c", command.replace("\0", "%")], env={}, check=True)
    log = machine.state / "nightly.log"
    said = [str(folder), str(tmp_path / "state"), "-m pipelines.schedule.run nightly"]
    assert log.read_text().splitlines() == said
    assert box.run_now("nightly") == f"nightly is started; watch it with: tail -f {log}"
    end = time.monotonic() + 30
    while log.read_text().splitlines() != said * 2:  # it is started, not waited for
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_machine_that_got_systemd_has_no_second_line(machine: Machine) -> None:
    machine.has(systemd="offline", crontab=True)
    box.install(nightly())
    machine.has(systemd="running", crontab=True)
    box.install(nightly())
    assert machine.table == []
    assert [one.where for one in box.listed()] == ["systemd"]


@pytest.mark.parametrize(("running", "warned"), [(["bash", "crond"], False), (["bash"], True)])
def test_a_table_that_nobody_reads(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, running: list[str], warned: bool
) -> None:
    machine.has(systemd=None, crontab=True)
    processes = [SimpleNamespace(info={"name": name}) for name in running]
    monkeypatch.setattr("psutil.process_iter", lambda attrs: processes)
    assert ("no cron runs here that would read the table: start it" in box.install(nightly())) == warned


def test_a_machine_with_neither_says_so(machine: Machine) -> None:
    with pytest.raises(DeviceError, match="neither systemd nor a crontab command is here"):
        box.install(nightly())
    assert box.listed() == []


def test_a_table_that_cannot_be_read_is_not_written(machine: Machine) -> None:
    machine.has(systemd=None, crontab=True)
    box.install(nightly())
    before = machine.table
    path = machine.programs / "crontab"
    path.write_text(path.read_text().replace("-l) cat", "-l) echo 'Permission denied' >&2; exit 1; cat"))
    with pytest.raises(DeviceError, match="crontab -l: Permission denied"):
        box.install(nightly("0 5 * * *"))
    assert machine.table == before


def test_what_the_programs_say_reaches_the_user(machine: Machine) -> None:
    machine.has(systemd="running")
    (machine.programs / "systemctl").write_text(
        '#!/bin/sh\n[ "$1" = is-system-running ] && echo running || { echo "Access denied" >&2; exit 4; }\n'
    )
    with pytest.raises(DeviceError, match="systemctl daemon-reload: Access denied"):
        box.install(nightly())


def test_a_secret_url_is_readable_by_its_owner_alone(machine: Machine) -> None:
    machine.has(systemd="running")
    said = box.install(nightly(on_failure="https://hooks.example/T0KEN"))
    assert "T0KEN" not in said + str(box.listed())
    assert not [path for path in machine.units.iterdir() if "T0KEN" in path.read_text()]
    path = machine.state / "nightly.json"
    assert "T0KEN" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "a b", "../x", "UPPER", "-a", "a" * 41, "a.timer"])
def test_a_name_fits_everywhere(name: str) -> None:
    with pytest.raises(ConfigError, match="lower-case letters, digits and hyphens"):
        nightly(name=name)


def test_a_file_names_its_schedule() -> None:
    assert name_of(Path("configs/llama2_7B.v2.yaml")) == "llama2-7b-v2"
    assert name_of(Path("__.yaml")) == "schedule"
