"""The plans for a task on the device at hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from steps.device import Choice, Device, Hardware, describe_hardware
from steps.provenance import read_provenance
from steps.quantize.params import QuantizationParameters
from steps.rows import list_lengths
from steps.train.build import Task
from steps.train.distributed.ranks import Ranks
from steps.train.plan.choose import PlannedPlan, budget_of, plans, why
from steps.train.plan.job import Job
from steps.train.plan.memory import CONTEXT, GIB
from steps.train.plan.params import PlanParameters
from steps.train.plan.plan import Plan
from steps.train.plan.shape import shape_of_folder


@dataclass(frozen=True)
class Planned:
    """The plans that fit, the fastest first, and why."""

    job: Job
    fixed: PlanParameters
    budget: int  # bytes
    options: list[PlannedPlan]
    hardware: Hardware
    ranks: Ranks

    @property
    def plans(self) -> list[Plan]:
        """Each needs less memory than the one before."""
        return [one.plan for one in self.options]

    def without_kernels(self) -> list[Plan]:
        """Plans by TRL's and PEFT's own path, which the choices know from then on; errors as in ``plans``."""
        free = self.fixed.model_copy(update={"kernels": "plain", "recompute": "auto"})
        found = plans(self.job, free, self.hardware, _available(self.job.device, self.ranks))
        self.options.extend(found)
        return [one.plan for one in found]

    def fits(self, plan: Plan) -> bool:
        """Whether the plan is expected to fit what is free now."""
        available = _available(self.job.device, self.ranks)
        return available is None or self._option(plan).memory.total <= available

    def choices(self, plan: Plan) -> list[Choice]:
        """What one of the plans decides, and why."""
        return why(self.job, self.fixed, self._option(plan), self.budget)

    def _option(self, plan: Plan) -> PlannedPlan:
        return next(one for one in self.options if one.plan == plan)


def planned(task: Task, parameters: PlanParameters) -> Planned:
    """Choose by what is free on every process's device now, before the model is loaded; errors as in ``plans``."""
    job = job_of(task)
    hardware = describe_hardware()
    available = _available(task.device, task.ranks)
    options = plans(job, parameters, hardware, available)
    return Planned(job, parameters, budget_of(parameters, hardware, available), options, hardware, task.ranks)


def _available(device: Device, ranks: Ranks) -> int | None:
    """Bytes of the fullest GPU that are free, and CUDA's context, which its process has already."""
    import torch

    return min(ranks.collect(torch.cuda.mem_get_info()[0] + CONTEXT)) if device.kind == "cuda" else None


def job_of(task: Task) -> Job:
    """What the predictions read of a task."""
    stored = read_provenance(task.model_folder)
    blocks = task.blocks["train"]
    lengths = list_lengths(blocks, "input_ids")
    return Job(
        shape=shape_of_folder(task.model_folder, trust_remote_code=bool(stored["base_model"]["trust_remote_code"])),
        training=task.training,
        device=task.device,
        block=int(lengths.max()),
        packed="seq_lengths" in blocks.column_names,
        filled=float(lengths.mean() / lengths.max()),
        quantization=QuantizationParameters.model_validate(stored["quantization"]),
        processes=task.ranks.size,
    )


@contextmanager
def memory_limit(parameters: PlanParameters, device: Device) -> Iterator[None]:
    """Have torch refuse to take more of the GPU than ``memory_gib``, CUDA's context included."""
    import torch

    if device.kind == "cpu" or parameters.memory_gib is None:
        yield
        return
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (parameters.memory_gib * GIB - CONTEXT) / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
