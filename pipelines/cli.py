"""The project's own command line."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.console import plain_command
from pipelines.schedule.cli import schedule

if TYPE_CHECKING:
    from pipelines.config import CheckedConfig
    from steps.device import Hardware


@click.group()
def main() -> None:
    """Fine-tune a language model to write code, and prove the result."""


main.add_command(schedule)


config_option = click.option(
    "-c",
    "--config",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="Configuration file of a run.",
)

html_option = click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a page into this file too."
)


@main.command()
@config_option
@click.option(
    "--gpu",
    help="Card to plan for, such as h100, a100-40gb, rtx4090, a10, t4, or CUDA's name; by default this machine's.",
)
@click.option("--memory", help="Memory of it that may be used, such as 24GiB or 20GB; by default all.")
@plain_command()
def check(path: Path, gpu: str | None, memory: str | None) -> None:
    """Try everything that could stop a run, without running it; show its plan and the resolved configuration.

    The plan is what training would begin with: how it uses the GPU, and the memory and time that this should take. It
    needs neither the card nor the weights. Exit code 1 if any check fails or no plan fits.
    """
    from pipelines.console import PlainError
    from pipelines.finetune import finetune
    from pipelines.forecast import hardware_of
    from pipelines.origins import resolved_lines
    from pipelines.preflight import CHECKS, preflight

    hardware = hardware_of(gpu, memory)
    config = finetune.check(path)
    failed = []
    for number, outcome in enumerate(preflight(config), start=1):
        label = f"{number}/{len(CHECKS)} {outcome.name:<10}"
        state = "ok      " if outcome.passed else "failed: "
        first, *others = outcome.message.splitlines()
        click.echo(f"{label}  {state}{first}")
        for line in others:
            click.echo(f"{'':{len(label) + 2 + len(state)}}{line}")
        failed += [] if outcome.passed else [outcome]
    click.echo()
    unfit = _show_plan(config, hardware, named=gpu is not None)
    click.echo()
    for line in resolved_lines(config):
        click.echo(line)
    # Once more, since the values above have scrolled them away
    lines = [f"{one.name}: {line}" for one in failed if one.tried for line in one.message.splitlines()]
    if unfit and not any(unfit in line for line in lines):
        lines.append(f"plan: {unfit}")
    if failed:
        lines.insert(0, f"{len(failed)} of {len(CHECKS)} checks failed")
    if lines:
        raise PlainError("\n".join(lines))


def _show_plan(config: "CheckedConfig", hardware: "Hardware", *, named: bool) -> str:
    """Print the plan, or in one line why there is none; that is given back too, unless another check says it."""
    from pipelines.config import NotTriedError
    from pipelines.forecast import forecast
    from steps.errors import PipelineError

    try:
        for line in forecast(config, hardware, named=named):
            click.echo(line)
    except PipelineError as error:
        click.echo(f"no plan: {error}")
        return "" if isinstance(error, NotTriedError) else str(error)
    return ""


@main.command()
@config_option
@click.option("-n", "count", default=3, show_default=True, type=click.IntRange(min=1), help="Rows to show.")
@plain_command()
def preview(path: Path, count: int) -> None:
    """Show rows as they would be trained, rendered and as token ids, without running the pipeline."""
    from pipelines.finetune import finetune
    from pipelines.preview import preview

    config = finetune.check(path)
    config.require()
    for line in preview(config, count):
        click.echo(line)


@main.command()
@click.argument("instruction")
@click.option(
    "--model",
    default="production",
    show_default=True,
    help="A stage of ZenML's model registry (production, staging, latest), MODEL:VERSION, or the folder of a merged "
    "model or adapter.",
)
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="Configuration that names the model of the registry.",
)
@click.option("--max-new-tokens", default=512, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@plain_command()
def generate(instruction: str, model: str, path: Path | None, max_new_tokens: int) -> None:
    """Answer an INSTRUCTION with a tuned model, word by word; Ctrl-C ends it."""
    from pipelines.generate import generate

    try:
        generate(instruction, model, path, max_new_tokens)
    except KeyboardInterrupt:
        click.echo()
        raise SystemExit(130) from None


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN RUN [...]")
@html_option
@plain_command()
def compare(names: tuple[str, ...], html: Path | None) -> None:
    """Show the evaluations of runs side by side: names or ids of runs, or MODEL:NUMBER, MODEL:production."""
    from pipelines.compare import draw, evaluations_of, shown
    from pipelines.console import write_page
    from steps.page import render

    evaluations = evaluations_of(names)
    click.echo(shown(evaluations), nl=False)
    if html is not None:
        write_page(html, render(draw(evaluations)))


@main.command()
@click.argument("name", required=False, metavar="[MODEL:VERSION | RUN | PATH]")
@html_option
@plain_command()
def lineage(name: str | None, html: Path | None) -> None:
    """Show where a model comes from, and check every hash that can be checked here.

    By default of the newest version of the only model. Exit code 1 where a byte is not what was recorded.
    """
    from pipelines.console import write_page
    from pipelines.lineage import lineage_of, shown, wrong
    from steps.errors import ModelError

    found = lineage_of(name)
    click.echo(shown(found), nl=False)
    if html is not None:
        write_page(html, found.html())
    if changed := wrong(found):
        raise ModelError("\n".join(changed))


@main.command()
@click.option("--model", help="Only runs of this ZenML model.")
@click.option("-n", "count", default=20, show_default=True, type=click.IntRange(min=1), help="Runs to show.")
@plain_command()
def runs(model: str | None, count: int) -> None:
    """Show the history of runs, the newest first: base>tuned of the loss and of two rates, and the stage now."""
    from pipelines.runs import history, shown

    click.echo(shown(history(model, count)), nl=False)


@main.command()
@click.argument("name", metavar="MODEL:VERSION")
@click.option("--stage", default="production", show_default=True, type=click.Choice(["production", "staging"]))
@click.option("--force", "reason", metavar="REASON", help="Promote it against the gate's decision; the reason is kept.")
@plain_command()
def promote(name: str, stage: str, reason: str | None) -> None:
    """Give a version a stage, if the gate let it pass; the one that has it is archived.

    MODEL:VERSION is such as quickstart:3 or quickstart:staging. Rolled back with: qlora rollback
    """
    from pipelines.promotion import promote_by_hand
    from steps.errors import ModelError

    model, colon, version = name.rpartition(":")
    if not colon:
        raise ModelError(f"{name}: not MODEL:VERSION, such as {name}:3 or {name}:staging")
    if reason is not None and not reason.strip():
        raise ModelError("--force needs a reason: it is kept with the version")
    promoted = promote_by_hand(model, version, stage, reason)
    click.echo(f"{model}:{promoted.number} is in {stage}")


@main.command()
@click.argument("model", required=False)
@plain_command()
def rollback(model: str | None) -> None:
    """Put the version back into production that was there before; the present one is archived.

    By default of the only MODEL that has a version in production.
    """
    from pipelines.promotion import roll_back

    present, restored = roll_back(model)
    click.echo(f"{restored.model.name}:{restored.number} is in production again; {present.number} is archived")


@main.command()
@click.option("--keep", default=3, show_default=True, type=click.IntRange(min=1), help="Newest versions to keep.")
@click.option("--model", help="Only versions of this ZenML model go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@plain_command()
def prune(keep: int, model: str | None, yes: bool) -> None:
    """Remove models and data sets that no kept version needs: what and how much is shown first.

    Versions in production and staging are always kept, and so is all that a kept version was made from. Reports and
    the history of runs stay. Without --model, so goes what killed trainings and merges left more than 30 days ago.
    """
    from pipelines.prune import abandoned, remove, shown, unneeded

    doomed, left = unneeded(keep, model), [] if model else abandoned()
    if not doomed and not left:
        click.echo("nothing to remove: every model and data set is needed by a kept version")
        return
    click.echo(shown(doomed, left), nl=False)
    if yes or click.confirm("Remove them?"):
        remove(doomed, left)
        click.echo("removed; what they were is still in the history: qlora runs")
