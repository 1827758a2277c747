"""The choice of a plan: the fastest that fits, and those to step down to where memory is short after all."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

from steps.device import Choice, Hardware
from steps.distributed.params import divisors
from steps.errors import ConfigError, DeviceError
from steps.train.plan.cards import TYPICAL, card_of
from steps.train.plan.job import Job
from steps.train.plan.memory import GIB, Memory, predict_memory
from steps.train.plan.params import PlanParameters
from steps.train.plan.plan import Plan, Recompute
from steps.train.plan.speed import predict_step_seconds

HEADROOM = 0.97
"""Share of the budget that a plan may need: predictions are within 4 % of what was measured, mostly within 1 %."""
STEP_DOWN = 0.9
"""Memory of a plan over that of the one before, at most, where the trainer steps down."""
LEVELS: tuple[Recompute, ...] = ("nothing", "norms", "mlp")
SHARDED = {"ddp": (False,), "fsdp": (True,), "auto": (False, True)}
"""Whether the plans of a strategy share weights out; the second kind where none of the first fits."""


@dataclass(frozen=True)
class PlannedPlan:
    """A plan and what it is expected to take."""

    plan: Plan
    memory: Memory
    seconds: float | None  # of an optimiser step; None where the device is in no table
    order: float  # by which plans of one job compare where seconds are not known


def plans(job: Job, parameters: PlanParameters, hardware: Hardware, available: int | None = None) -> list[PlannedPlan]:
    """The fastest plan that fits, then plans with less and less memory, each the fastest of its size.

    Args:
        job: model, recipe and device.
        parameters: what the user fixed.
        hardware: the card, or the processor.
        available: bytes that this process may use, its CUDA context included; None: all that the card has.

    Raises:
        ConfigError: ``plan.micro_batch`` does not divide the blocks of an optimiser step.
        DeviceError: no plan fits.
    """
    problem = parameters.misfit(job.blocks * job.processes, job.processes)
    if problem:
        raise ConfigError(f"parameters.plan.micro_batch: {problem}")
    budget = budget_of(parameters, hardware, available)
    strategy = parameters.distributed.strategy if job.processes > 1 else "ddp"
    found: list[PlannedPlan] = []
    for sharded in SHARDED[strategy]:
        candidates = _candidates(job, parameters, sharded=sharded)
        found = sorted((_planned(job, plan, hardware) for plan in candidates), key=_order)
        fitting = found if hardware.kind == "cpu" else _ladder(found, budget)
        if fitting:
            return fitting
    raise _too_small(min(found, key=lambda one: one.memory.total), parameters, budget)


def _ladder(found: list[PlannedPlan], budget: int) -> list[PlannedPlan]:
    """Plans that fit, each smaller than the one before."""
    limit = HEADROOM * budget
    ladder: list[PlannedPlan] = []
    for one in found:  # slower and slower: one that also needs more is of no use
        if one.memory.total <= limit:
            ladder.append(one)
            limit = STEP_DOWN * one.memory.total
    return ladder


def budget_of(parameters: PlanParameters, hardware: Hardware, available: int | None) -> int:
    """Bytes that the training may use, the CUDA context included."""
    asked = int(parameters.memory_gib * GIB) if parameters.memory_gib else hardware.memory_bytes
    return min(asked, hardware.memory_bytes, hardware.memory_bytes if available is None else available)


def _order(one: PlannedPlan) -> tuple[float, int]:
    return one.order, one.memory.total


def _planned(job: Job, plan: Plan, hardware: Hardware) -> PlannedPlan:
    card = card_of(hardware.name)
    order = predict_step_seconds(job, plan, card or TYPICAL)
    return PlannedPlan(plan, predict_memory(job, plan), order if card else None, order)


def _candidates(job: Job, parameters: PlanParameters, *, sharded: bool) -> Iterator[Plan]:
    """All plans that the parameters leave open; weights that are gathered layer by layer have no kernels of ours."""
    layers = job.shape.layers
    if job.device.kind == "cpu":
        micro = parameters.micro_batch or gcd(job.training.batch_size, job.blocks)
        again = layers if parameters.recompute == "layers" else 0
        fused = parameters.kernels == "auto" and not sharded
        yield Plan(micro, job.blocks // micro, again, fused=fused, recompute="nothing", sharded=sharded)
        return
    fused = parameters.kernels == "auto" and not job.not_fused and not sharded
    for micro in [parameters.micro_batch] if parameters.micro_batch else divisors(job.blocks):
        captured = fused and not job.not_captured
        start = Plan(micro, job.blocks // micro, fused=fused, captured=captured, sharded=sharded)
        for again in _recomputed_layers(parameters, layers, fused):
            for level in _levels(parameters) if fused and again < layers else LEVELS[:1]:
                yield replace(start, recomputed_layers=again, recompute=level)
                if fused and not again:
                    for quarter in range(1, 5):
                        yield replace(start, recompute=level, held_layers=layers * quarter // 4)


def _recomputed_layers(parameters: PlanParameters, layers: int, fused: bool) -> range:
    """A level of fused plans means nothing to a plain one, which then chooses for itself."""
    if parameters.recompute == "layers":
        return range(layers, layers + 1)
    if not fused and parameters.recompute != "nothing":
        return range(0, layers + 1, layers)  # transformers recomputes all layers or none
    if parameters.recompute == "nothing" or (fused and parameters.recompute != "auto"):
        return range(1)
    return range(layers + 1)


def _levels(parameters: PlanParameters) -> tuple[Recompute, ...]:
    return tuple(level for level in LEVELS if parameters.recompute in ("auto", "layers", level))


def _too_small(smallest: PlannedPlan, parameters: PlanParameters, budget: int) -> DeviceError:
    fixed = [name for name in ("micro_batch", "recompute", "kernels") if _is_fixed(name, parameters)]
    keys = " and ".join(f"parameters.plan.{name}" for name in fixed)
    first = f"leave {keys} to the planner, or use" if fixed else "use"
    last = "more GPUs" if smallest.plan.sharded else "training.optimizer adamw_8bit"
    return DeviceError(
        f"parameters.plan: the smallest plan needs {smallest.memory.total / HEADROOM / GIB:.1f} GiB and "
        f"{budget / GIB:.1f} GiB may be used (weights {smallest.memory.weights / GIB:.1f}); {first} a smaller "
        f"base model, a lower training.lora.r, a shorter prompt.max_length or {last}"
    )


def why(job: Job, parameters: PlanParameters, best: PlannedPlan, budget: int) -> list[Choice]:
    """What was decided, and why."""
    plan = best.plan
    on_cpu = job.device.kind == "cpu"
    if parameters.kernels == "plain":
        fused = "named by parameters.plan.kernels"
    elif plan.sharded:
        fused = "weights are gathered layer by layer"
    elif not plan.fused and not job.not_fused:
        fused = "ours failed in the pre-flight"
    elif on_cpu:
        fused = "loss of trained tokens alone and attention within sequences, where the model allows it"
    else:
        fused = job.not_fused or "plain LoRA on 4-bit layers"
    blocks = f"{job.blocks} blocks an optimiser step" + " and process" * (job.processes > 1)
    graph = job.not_captured if plan.fused or on_cpu else "only fused kernels are captured"
    fits = f"predicted, of {budget / GIB:.1f} GiB that may be used"
    return [
        *([_processes(job, plan, parameters)] if job.processes > 1 else []),
        Choice("kernels", "fused" if plan.fused else "plain", fused),
        Choice("micro-batch", f"{plan.micro_batch} x {plan.accumulation}", _why("micro_batch", parameters, blocks)),
        Choice(
            "recomputed", _recomputed(plan, job.shape.layers), _why("recompute", parameters, "the fastest that fits")
        ),
        Choice("CUDA graph", "on" if plan.captured else "off", graph or "the GPU need not wait for launches"),
        *([] if on_cpu else [Choice("memory", f"{best.memory.total / GIB:.1f} GiB", fits)]),
    ]


def _processes(job: Job, plan: Plan, parameters: PlanParameters) -> Choice:
    named = parameters.distributed.strategy != "auto"
    fits = "the whole model fits each of them" if not plan.sharded else "no plan with the whole model fits"
    reason = "named by parameters.plan.distributed.strategy" if named else fits
    return Choice("processes", f"{job.processes} x {'fsdp' if plan.sharded else 'ddp'}", reason)


def _why(name: str, parameters: PlanParameters, otherwise: str) -> str:
    return f"named by parameters.plan.{name}" if _is_fixed(name, parameters) else otherwise


def _is_fixed(name: str, parameters: PlanParameters) -> bool:
    return getattr(parameters, name) not in (None, "auto")


def _recomputed(plan: Plan, layers: int) -> str:
    parts = [f"{plan.recomputed_layers} of {layers} layers"] if plan.recomputed_layers else []
    if plan.fused and plan.recomputed_layers < layers and plan.recompute != "nothing":
        parts.append(plan.recompute)
    return ", ".join(parts) or "nothing"
