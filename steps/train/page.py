"""The page of the training."""

from steps.page import Page, Section, Table, Tile, figure, svg
from steps.progress import clock
from steps.train.report import TrainingReport


def draw(report: TrainingReport) -> Page:
    """Loss over the steps, what it took, and every parameter."""
    share = report.trainable_parameters / report.total_parameters
    tiles = [
        Tile("Training loss", f"{report.steps[-1].loss:.3f}", f"from {report.steps[0].loss:.3f}"),
        Tile("Steps", f"{len(report.steps)}", report.stopped),
        Tile("Time", clock(report.seconds), f"{report.tokens_per_second:,.0f} tokens/s"),
        Tile("Peak memory", f"{report.peak_memory_bytes / 2**30:.1f} GiB", "of GPU or process"),
        Tile("Trained parameters", f"{report.trainable_parameters / 1e6:.1f} M", f"{share:.2%} of the model"),
    ]
    if report.validation:
        best = min(point.loss for point in report.validation)
        note = f"best, from step {report.best_step}; first {report.validation[0].loss:.3f}"
        tiles.insert(1, Tile("Validation loss", f"{best:.3f}", note))
    lead = f"{report.blocks:,} blocks, {report.tokens_per_step:,} tokens an optimiser step, {report.device}."
    lead += "".join(f" Resumed from step {step}." for step in report.resumed_from)
    return Page(
        title="Training",
        lead=lead,
        tiles=tiles,
        sections=[
            Section("Loss, learning rate and gradient norm", figures=[_losses(report), _rates(report)]),
            *_incidents(report),
            Section(
                "Parameters in force",
                table=Table(["parameter", "value"], [[name, str(value)] for name, value in report.parameters.items()]),
            ),
        ],
    )


def _incidents(report: TrainingReport) -> list[Section]:
    """A section on steps that were skipped or stand out, where there are any."""
    loss = {step.step: step.loss for step in report.steps}
    rows = [(one.step, "skipped", one.reason, ", ".join(one.row_ids)) for one in report.skipped]
    rows += [(step, "loss spike", f"loss {loss[step]:.3f}", "") for step in report.spikes]
    if not rows:
        return []
    table = Table(
        ["step", "what", "why", "rows"], [[str(step), *texts] for step, *texts in sorted(rows)], code=["rows"]
    )
    text = "A skipped step changed no weight. A loss spike lies far above the losses of the steps before it."
    return [Section("Skipped steps and loss spikes", text=text, table=table)]


def _losses(report: TrainingReport) -> str:
    drawing, axes = figure(height=3.0)
    steps = [step.step for step in report.steps]
    axes.plot(steps, [step.loss for step in report.steps], color="#3b82f6", linewidth=1.3, label="training")
    if report.validation:
        points = report.validation
        axes.plot(
            [point.step for point in points],
            [point.loss for point in points],
            color="#d97706",
            marker="o",
            markersize=3.5,
            label="validation",
        )
        axes.axvline(report.best_step, color="#888888", linewidth=0.8, linestyle="--", label="adapter kept")
    loss = {step.step: step.loss for step in report.steps}
    if report.spikes:
        axes.plot(report.spikes, [loss[step] for step in report.spikes], "v", color="#dc2626", label="spike")
    for number, one in enumerate(report.skipped):
        axes.axvline(one.step, color="#dc2626", linewidth=0.8, linestyle=":", label="" if number else "step skipped")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss, nats per token")
    axes.legend(frameon=False)
    return svg(drawing)


def _rates(report: TrainingReport) -> str:
    drawing, axes = figure(height=2.0)
    steps = [step.step for step in report.steps]
    axes.plot(steps, [step.grad_norm for step in report.steps], color="#059669", linewidth=1.1)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("gradient norm", color="#059669")
    other = axes.twinx()
    other.plot(steps, [step.learning_rate for step in report.steps], color="#888888", linewidth=1.1)
    other.set_ylabel("learning rate", color="#888888")
    other.spines[["top"]].set_visible(False)
    return svg(drawing)
