"""The page of the training."""

from typing import TYPE_CHECKING

from steps.page import COLOURS, Page, Section, Table, Tile, panels, svg
from steps.parameters import flat
from steps.progress import clock
from steps.train.report import Cost, TrainingReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAD = "#e5484d"

PHASES = {
    "start": "loading the model, making the adapter, pre-flight, reading checkpoints",
    "data": "waiting for micro-batches",
    "forward": "forward pass and loss",
    "backward": "backward pass, activations computed again for it",
    "captured": "both passes, replayed as one CUDA graph",
    "optimizer": "clipping, check for infinite gradients, optimiser, schedule",
    "evaluation": "validation loss, copy of the best adapter",
    "checkpoints": "written to disk",
    "rest": "all else: logging, copies to the device",
}


def draw(report: TrainingReport) -> Page:
    """The course of the training, what it took, what was decided, and every parameter."""
    cost = report.cost
    tiles = [
        Tile("Training loss", f"{report.steps[-1].loss:.3f}", f"from {report.steps[0].loss:.3f}"),
        Tile("Steps", f"{len(report.steps)}", report.stopped),
        Tile("Time", clock(cost.seconds), f"{report.tokens:,} tokens, {report.epochs:.3g} epochs"),
        Tile("Tokens a second", f"{cost.tokens_per_second:,.0f}", f"{cost.tokens_per_second_overall:,.0f} over all"),
        Tile("Peak memory", f"{cost.peak_memory_bytes / 2**30:.1f} GiB", f"of the {cost.memory_of}"),
        Tile(
            "Trained parameters", f"{report.trainable_parameters / 1e6:.1f} M", f"{report.trainable_share:.2%} of all"
        ),
    ]
    if report.validation:
        best = min(point.loss for point in report.validation)
        note = f"best, from step {report.best_step}; first {report.validation[0].loss:.3f}"
        tiles.insert(1, Tile("Validation loss", f"{best:.3f}", note))
    lead = f"{report.blocks:,} blocks, {report.tokens_per_step:,} tokens an optimiser step, {report.device}."
    lead += "".join(f" Resumed from step {step}." for step in report.resumed_from)
    choices = [[one.name, one.value, one.reason] for one in report.choices]
    parameters = [[name, str(value)] for name, value in flat(report.parameters)]
    return Page(
        title="Training",
        lead=lead,
        tiles=tiles,
        sections=[
            Section("Loss, gradient norm and learning rate", figures=[_curves(report)]),
            *_incidents(report),
            _times(cost, report.preflight_seconds),
            _efficiency(report),
            Section("What was decided, and why", table=Table(["choice", "value", "reason"], choices)),
            Section("Parameters in force", table=Table(["parameter", "value"], parameters, code=["parameter"])),
        ],
    )


def _times(cost: Cost, preflight: float) -> Section:
    """A table of the phases, in the order of PHASES."""
    rows = [
        [phase, _duration(cost.seconds_in[phase]), f"{cost.seconds_in[phase] / cost.seconds:.1%}", about]
        for phase, about in PHASES.items()
        if phase in cost.seconds_in
    ]
    text = "Of all processes that took part; work that a kill undid is left out."
    text += f" The last pre-flight took {_duration(preflight)}." * (preflight > 0)
    return Section("Where the time went", text=text, table=Table(["phase", "time", "share", "what"], rows))


def _duration(seconds: float) -> str:
    return clock(seconds) if seconds >= 60 else f"{seconds:.2g} s"


def _efficiency(report: TrainingReport) -> Section:
    """Speed, utilisation and energy, or why they are not known."""
    cost = report.cost
    rows = [
        ["training alone", f"{cost.tokens_per_second:,.0f} tokens/s"],
        ["with start, evaluations and checkpoints", f"{cost.tokens_per_second_overall:,.0f} tokens/s"],
        ["operations that the model needs", f"{report.flop_per_token / 1e9:.3g} GFLOP a token"],
    ]
    if cost.peak_flops and cost.model_flop_utilization and cost.computed_flop_utilization:
        rows += [
            ["peak of all cards", f"{cost.peak_flops / 1e12:,.0f} TFLOP/s, dense, by its data sheet"],
            ["model FLOP utilisation", f"{cost.model_flop_utilization:.1%}"],
            ["with activations computed again", f"{cost.computed_flop_utilization:.1%}"],
        ]
    else:
        rows.append(["model FLOP utilisation", "not known: no peak is known for this device and precision"])
    if cost.energy_joules is None:
        rows.append(["energy", "not known: the device doesn't tell"])
    else:
        hours, each = cost.energy_joules / 3600, cost.energy_joules / report.tokens
        rows.append(["energy of the card", f"{hours:,.1f} Wh, {each:.3g} J a token"])
    return Section("Speed and energy", table=Table(["figure", "value"], rows))


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


def _curves(report: TrainingReport) -> str:
    """Losses above; below, on the same steps, gradient norm and learning rate."""
    drawing, (losses, norms) = panels((3.0, 1.8))
    steps = [step.step for step in report.steps]
    losses.plot(steps, [step.loss for step in report.steps], color=COLOURS[0], linewidth=1.3, label="training")
    if report.validation:
        at, measured = zip(*((point.step, point.loss) for point in report.validation), strict=True)
        losses.plot(at, measured, color=COLOURS[1], marker="o", markersize=3.5, label="validation")
        losses.axvline(report.best_step, color="#888888", linewidth=0.8, linestyle="--", label="adapter kept")
    losses.set_ylabel("loss, nats per token")
    norms.plot(steps, [step.grad_norm for step in report.steps], color=COLOURS[2], linewidth=1.1)
    norms.set_ylabel("gradient norm", color=COLOURS[2])
    norms.set_xlabel("optimiser step")
    rates = norms.twinx()
    rates.plot(steps, [step.learning_rate for step in report.steps], color=COLOURS[3], linewidth=1.1)
    rates.set_ylabel("learning rate", color=COLOURS[3])
    rates.spines[["top"]].set_visible(False)
    rates.ticklabel_format(axis="y", scilimits=(-3, 3))
    _mark_incidents(report, losses, norms)
    losses.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=5, fontsize=9)
    return svg(drawing)


def _mark_incidents(report: TrainingReport, losses: "Axes", norms: "Axes") -> None:
    """Spikes as triangles on both curves, skipped steps as dotted lines through both."""
    spiked = [step for step in report.steps if step.step in set(report.spikes)]
    if spiked:
        steps = [step.step for step in spiked]
        losses.plot(steps, [step.loss for step in spiked], "v", color=BAD, label="loss spike")
        norms.plot(steps, [step.grad_norm for step in spiked], "v", color=BAD)
    for number, one in enumerate(report.skipped):
        label = "" if number else "step skipped"
        losses.axvline(one.step, color=BAD, linewidth=1.2, linestyle=":", label=label)
        norms.axvline(one.step, color=BAD, linewidth=1.2, linestyle=":")
