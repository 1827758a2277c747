"""``qlora schedule`` as it is typed."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.schedule import native, store
from pipelines.schedule.plan import Listed, Schedule
from pipelines.stack import on_stack
from tests.schedule.conftest import Machine

CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml")
NIGHTLY = ("-c", CONFIG, "--cron", "0 3 * * *")


def schedule(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["schedule", *arguments])


@pytest.fixture
def timers(machine: Machine) -> Machine:
    """A machine on which systemd runs."""
    machine.has(systemd="running")
    return machine


def test_from_the_first_night_to_the_last(timers: Machine) -> None:
    assert schedule("list").output.startswith("no schedules yet; such as: qlora schedule -c ")
    said = schedule(*NIGHTLY, "--on-failure", "mail -s failed me")
    assert said.exit_code == 0, said.output
    assert said.output.startswith(f"quickstart is scheduled (systemd): {CONFIG}; next run ")
    store.note("quickstart", "2026-11-24 03:00 nothing changed")
    assert schedule("-c", CONFIG, "--cron", "0 5 * * *", "--name", "quickstart").exit_code == 0
    shown = schedule("list").output
    assert shown.count("quickstart ") == 1
    for text in ("0 5 * * *", "systemd", "05:00", "nothing changed"):
        assert text in shown
    assert store.entry_named("quickstart").schedule.on_failure is None, "what is not asked for again is gone"
    assert "quickstart is paused" in schedule("pause", "quickstart").output
    assert "paused" in schedule("list").output
    for command, text in (("resume", "is active"), ("run-now", "is started"), ("remove", "is removed")):
        assert f"quickstart {text}" in schedule(command, "quickstart").output
    assert schedule("list").output.startswith("no schedules yet")


def test_another_file_of_the_same_name_replaces_nothing(timers: Machine, tmp_path: Path) -> None:
    schedule(*NIGHTLY)
    other = tmp_path / "quickstart.yaml"
    other.write_text(Path(CONFIG).read_text())
    said = schedule("-c", str(other), "--cron", "0 4 * * *")
    assert said.exit_code == 1
    assert said.output == (
        f"error: {other}: the schedule quickstart runs {CONFIG}; give this one another --name, or --name quickstart to "
        "replace it\n"
    )
    assert schedule("-c", str(other), "--cron", "0 4 * * *", "--name", "quickstart").exit_code == 0
    assert [str(entry.schedule.configuration) for entry in store.entries()] == [str(other)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pause", "nowhere"), "error: no schedule is called nowhere; there are: none\n"),
        ((*NIGHTLY, "--stack", "nowhere"), "error: stack nowhere: ZenML has no such stack; list them with: "),
        (("-c", CONFIG, "--cron", "@daily"), "error: --cron '@daily': has 1 fields, not 5"),
        (("-c", "nowhere.yaml", "--cron", "0 3 * * *"), "error: nowhere.yaml"),
        (("-c", CONFIG), "needs -c CONFIG and --cron, or one of list, pause, resume, remove, run-now"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_scheduled(
    timers: Machine, arguments: tuple[str, ...], message: str
) -> None:
    said = schedule(*arguments)
    assert said.exit_code != 0
    assert message in said.output
    assert store.entries() == []
    assert timers.told == []


def test_a_stack_whose_orchestrator_has_schedules_gets_them(timers: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The orchestrator is the local one that says it had them; what others do with a schedule is tested with them."""
    from zenml.orchestrators.local.local_orchestrator import LocalOrchestratorConfig

    handed: list[Schedule] = []

    def install(one: Schedule) -> str:
        handed.append(one)
        return f"{one.name} is there"

    def listed() -> list[Listed]:
        return [Listed(one.name, "there", one.cron, str(one.configuration), "", True, "", "") for one in handed]

    schedule(*NIGHTLY)
    monkeypatch.setattr(LocalOrchestratorConfig, "is_schedulable", True)
    monkeypatch.setattr(native, "listed", listed)
    monkeypatch.setattr(native, "install", install)
    assert schedule(*NIGHTLY).output == "quickstart is there\n"
    assert handed == [Schedule("quickstart", Path(CONFIG), "0 3 * * *")]
    assert store.entries() == [], "and not on this machine as well"
    assert list(timers.units.iterdir()) == []


def test_a_stack_is_active_for_the_block_alone(timers: Machine) -> None:
    from zenml.client import Client
    from zenml.enums import StackComponentType

    default = Client().active_stack_model
    components = {kind: found[0].id for kind, found in default.components.items()}
    made = Client().create_stack("gpu", {StackComponentType(kind): identity for kind, identity in components.items()})
    with on_stack("gpu"):
        assert Client().active_stack_model.id == made.id
        assert Client().active_stack.id == made.id
        with on_stack(None):
            assert Client().active_stack_model.id == made.id
    assert Client().active_stack_model.id == default.id
    assert schedule(*NIGHTLY, "--stack", "gpu").exit_code == 0
    assert " gpu " in schedule("list").output
    assert Client().active_stack_model.id == default.id
    Client().delete_stack(made.id)
