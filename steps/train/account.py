"""The report of a finished training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.device import Choice, Device
from steps.rows import list_lengths
from steps.train.build import Task
from steps.train.course import Course
from steps.train.distributed.task import LeftPlan
from steps.train.divergence import spikes
from steps.train.plan.plan import Plan
from steps.train.report import Cost, TrainingReport
from steps.train.utilization import PEAK_FLOPS, FlopPerToken, flop_per_token, mean_context

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Trained:
    """A finished training: the model has its best weights."""

    model: "PeftModel"
    course: Course  # of all processes that took part
    initial: str  # hash of the adapter that the training started with
    parameters: tuple[int, int]  # trained ones, all
    plan: Plan
    kernels: str  # what was put into the model, and what was not
    left: list[LeftPlan]  # plans of this call that needed too much memory
    preflight_seconds: float  # of this call; 0 if it trained nothing


def report_of(task: Task, trained: Trained, plan_choices: list[Choice]) -> TrainingReport:
    """Put the report together; ``plan_choices`` say why the plan is as it is."""
    course, training, blocks = trained.course, task.training, task.blocks["train"]
    parameters, total = trained.parameters
    flop = flop_per_token(trained.model, mean_context(blocks), recomputed_layers=trained.plan.recomputed_layers)
    early = f"validation loss no longer fell after step {course.best_step}"
    tokens = int(list_lengths(blocks, "input_ids").sum())
    return TrainingReport(
        steps=course.steps,
        validation=course.validation,
        skipped=course.skipped,
        spikes=spikes(course.steps, training.divergence),
        resumed_from=course.resumed_from,
        best_step=course.best_step or course.last_step,
        stopped=early if course.stopped_early else "all steps done",
        planned_steps=course.planned_steps,
        blocks=len(blocks),
        tokens_per_step=round(training.batch_size * training.gradient_accumulation * tokens / len(blocks)),
        tokens=course.tokens,
        epochs=course.epochs,
        trainable_parameters=parameters,
        total_parameters=total,
        flop_per_token=flop.model,
        initial_adapter_sha256=trained.initial,
        device=task.device.reason,
        choices=[
            *task.device.choices,
            *plan_choices,
            Choice("kernels in the model", trained.kernels, "what the model allowed"),
            *(Choice("plan left", one.plan, one.reason) for one in trained.left),
        ],
        preflight_seconds=trained.preflight_seconds,
        cost=cost_of(course, flop, task.device, task.ranks.size),
        parameters=training.model_dump(mode="json"),
    )


def cost_of(course: Course, flop: FlopPerToken, device: Device, devices: int) -> Cost:
    """What the course took, and how much of the devices' peak that is."""
    speed = course.tokens / course.training_seconds
    known = PEAK_FLOPS.get(device.name) if device.precision != "float32" else None
    peak = known and known * devices
    return Cost(
        seconds=course.seconds,
        seconds_in=course.seconds_in,
        tokens_per_second=speed,
        tokens_per_second_overall=course.tokens / course.seconds,
        peak_memory_bytes=course.peak_memory_bytes,
        memory_of="GPU" if device.kind == "cuda" else "process",
        peak_flops=peak,
        model_flop_utilization=peak and speed * flop.model / peak,
        computed_flop_utilization=peak and speed * flop.computed / peak,
        energy_joules=course.energy_joules,
    )
