"""The report of a finished training."""

from typing import TYPE_CHECKING

from datasets import Dataset

from steps.quantize.device import Device
from steps.rows import list_lengths
from steps.train.course import Course
from steps.train.divergence import spikes
from steps.train.params import TrainingParameters
from steps.train.report import Cost, TrainingReport
from steps.train.utilization import PEAK_FLOPS, FlopPerToken, flop_per_token, mean_context

if TYPE_CHECKING:
    from peft import PeftModel


def report_of(
    course: Course,
    initial: str,
    blocks: Dataset,
    model: "PeftModel",
    training: TrainingParameters,
    device: Device,
    preflight_seconds: float,
) -> TrainingReport:
    """Put the report together.

    Args:
        course: of all processes that took part.
        initial: hash of the adapter that the training started with.
        blocks: of the training split.
        model: base and adapter.
        training: what was learned.
        device: where.
        preflight_seconds: of this call; 0 if it trained nothing.
    """
    trained, total = model.get_nb_trainable_parameters()
    flop = flop_per_token(model, mean_context(blocks), checkpointing=training.gradient_checkpointing)
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
        trainable_parameters=trained,
        total_parameters=total,
        flop_per_token=flop.model,
        initial_adapter_sha256=initial,
        device=device.reason,
        choices=list(device.choices),
        preflight_seconds=preflight_seconds,
        cost=cost_of(course, flop, device),
        parameters=training.model_dump(mode="json"),
    )


def cost_of(course: Course, flop: FlopPerToken, device: Device) -> Cost:
    """What the course took, and how much of the device's peak that is."""
    speed = course.tokens / course.training_seconds
    peak = PEAK_FLOPS.get(device.name) if device.precision != "float32" else None
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
