"""Parameters of the plan: what may be used of the device."""

from typing import Literal, Self

from pydantic import Field, model_validator

from steps.distributed.params import DistributedParameters, no_divisor
from steps.parameters import Parameters


class PlanParameters(Parameters):
    """What may be used of the device, and what of its plan is fixed; decides speed and memory, never what is learned.

    The planner (steps/train/plan) takes the fastest plan that fits.
    """

    memory_gib: float | None = Field(
        default=None, gt=0, description="GiB of the GPU's memory that a training may use; by default what is free"
    )
    kernels: Literal["auto", "plain"] = Field(
        default="auto", description="auto takes fused kernels where the model has them; plain is TRL's own path"
    )
    micro_batch: int | None = Field(
        default=None,
        gt=0,
        description="blocks of a forward pass, a divisor of a process's share of an optimiser step; by default chosen",
    )
    recompute: Literal["auto", "nothing", "norms", "mlp", "layers"] = Field(
        default="auto",
        description="what the backward pass makes again to save memory: the norms' outputs, also gate and up of the "
        "MLP, or whole layers (gradient checkpointing)",
    )

    distributed: DistributedParameters = DistributedParameters()

    @model_validator(mode="after")
    def _levels_are_those_of_kernels(self) -> Self:
        if self.kernels == "plain" and self.recompute in ("norms", "mlp"):
            raise ValueError(
                f"recompute {self.recompute} needs fused kernels, and kernels is plain; use nothing, layers or auto, "
                "or kernels auto"
            )
        return self

    def misfit(self, blocks: int, processes: int = 1) -> str | None:
        """What is wrong with ``micro_batch`` for an optimiser step of so many blocks, or None."""
        each = f" for each of {processes} processes" if processes > 1 else ""
        return None if self.micro_batch is None else no_divisor(self.micro_batch, blocks // processes, each)
