"""``qlora schedule``: run a configuration again and again, on this machine or by an orchestrator's own schedules."""

from pathlib import Path
from types import ModuleType

import click

from pipelines.console import plain_command


@click.group(invoke_without_command=True)
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file of a run.")
@click.option("--cron", metavar='"0 3 * * *"', help="When: minute, hour, day of the month, month, day of the week.")
@click.option("--name", help="Of the schedule; by default the configuration file's.")
@click.option("--stack", help="ZenML stack to run on; by default the one that is active when the run starts.")
@click.option(
    "--on-failure",
    metavar="COMMAND|URL",
    help="Shell command that gets the message as its input, or URL that gets it by POST, when a run fails.",
)
@click.pass_context
def schedule(
    context: click.Context,
    path: Path | None,
    cron: str | None,
    name: str | None,
    stack: str | None,
    on_failure: str | None,
) -> None:
    """Retrain on a schedule; the same command again changes it.

    A systemd timer, or a crontab line where systemd does not run; on a stack whose orchestrator has schedules, its own.
    A run in which nothing changed takes every step from the cache, and what is not better is not promoted.
    """
    if context.invoked_subcommand is not None:
        return
    if path is None or cron is None:
        raise click.UsageError("needs -c CONFIG and --cron, or one of list, pause, resume, remove, run-now")
    with plain_command():
        click.echo(_install(path, cron, name, stack, on_failure))


@schedule.command("list")
@plain_command()
def list_() -> None:
    """Show every schedule: when it runs next, and how its last run ended."""
    from pipelines.schedule.table import shown

    click.echo(shown([one for home in _homes() for one in home.listed()]), nl=False)


@schedule.command()
@click.argument("name")
def pause(name: str) -> None:
    """Let it rest until it is resumed; a run that is going on goes on."""
    _do("pause", name)


@schedule.command()
@click.argument("name")
def resume(name: str) -> None:
    """Let a paused one run again."""
    _do("resume", name)


@schedule.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget it; its runs, models and reports stay."""
    _do("remove", name)


@schedule.command("run-now")
@click.argument("name")
def run_now(name: str) -> None:
    """Run it once, now, just as it runs at its time."""
    _do("run_now", name)


@plain_command()
def _do(action: str, name: str) -> None:
    click.echo(getattr(_home_of(name), action)(name))


def _homes() -> tuple[ModuleType, ModuleType]:
    """The modules that hold schedules; both have install, listed, pause, resume, remove and run_now."""
    from pipelines.schedule import box, native

    return box, native


def _home_of(name: str) -> ModuleType:
    from steps.errors import ConfigError

    known: list[str] = []
    for home in _homes():
        names = [one.name for one in home.listed()]
        if name in names:
            return home
        known += names
    raise ConfigError(f"no schedule is called {name}; there are: {', '.join(known) or 'none'}")


def _install(path: Path, cron: str, name: str | None, stack: str | None, on_failure: str | None) -> str:
    from zenml.client import Client

    from pipelines.finetune import finetune
    from pipelines.schedule.plan import Schedule, name_of
    from pipelines.stack import on_stack
    from steps.errors import ConfigError

    planned = Schedule(name or name_of(path), path.resolve(), cron, stack, on_failure)
    with on_stack(stack):
        finetune.check(path).require()
        schedulable = Client().active_stack.orchestrator.config.is_schedulable
    box, native = _homes()
    home, other = (native, box) if schedulable else (box, native)
    replaced = {one.name: one for each in (home, other) for one in each.listed()}.get(planned.name)
    if name is None and replaced and replaced.configuration != str(planned.configuration):
        raise ConfigError(
            f"{path}: the schedule {planned.name} runs {replaced.configuration}; give this one another --name, or "
            f"--name {planned.name} to replace it"
        )
    said = str(home.install(planned))
    if replaced and planned.name in [one.name for one in other.listed()]:  # its stack was of the other kind
        other.remove(planned.name)
    return said
