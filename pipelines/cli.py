"""The project's own command line."""

from pathlib import Path

import click

from pipelines.console import quiet_console


@click.group()
def main() -> None:
    """Fine-tune a language model to write code, and prove the result."""


config_option = click.option(
    "-c",
    "--config",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="Configuration file of a run.",
)


@main.command()
@config_option
def check(path: Path) -> None:
    """Try everything that could stop a run, without running it, and show the resolved configuration.

    Exit code 1 if any check fails.
    """
    quiet_console()
    from pipelines.finetune import finetune
    from pipelines.origins import resolved_lines
    from pipelines.preflight import CHECKS, preflight
    from pipelines.strict import plain_errors

    with plain_errors():
        config = finetune.check(path)
    failed = 0
    for number, outcome in enumerate(preflight(config), start=1):
        label = f"{number}/{len(CHECKS)} {outcome.name:<10}"
        state = "ok      " if outcome.passed else "failed: "
        first, *others = outcome.message.splitlines()
        click.echo(f"{label}  {state}{first}")
        for line in others:
            click.echo(f"{'':{len(label) + 2 + len(state)}}{line}")
        failed += not outcome.passed
    click.echo()
    for line in resolved_lines(config):
        click.echo(line)
    if failed:
        click.echo(f"error: {failed} of {len(CHECKS)} checks failed", err=True)
        raise SystemExit(1)


@main.command()
@config_option
@click.option("-n", "count", default=3, show_default=True, type=click.IntRange(min=1), help="Rows to show.")
def preview(path: Path, count: int) -> None:
    """Show rows as they would be trained, rendered and as token ids, without running the pipeline."""
    quiet_console()
    from pipelines.finetune import finetune
    from pipelines.preview import preview
    from pipelines.strict import plain_errors

    with plain_errors():
        config = finetune.check(path)
        config.require()
        for line in preview(config, count):
            click.echo(line)
