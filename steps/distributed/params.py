"""Parameters of the work of several processes."""

from typing import Annotated, Literal

from pydantic import Field

from steps.parameters import Parameters


class DistributedParameters(Parameters):
    """How many processes share the training and the evaluation, one for each GPU, and how the training does; what is
    learned and measured is the same."""

    processes: Literal["auto"] | Annotated[int, Field(gt=0)] = Field(
        default="auto",
        description="processes that share an optimiser step, over all machines; a divisor of its blocks. auto: one "
        "for each GPU, as many as divide the blocks; one without a GPU. The evaluation takes as many, on this machine, "
        "and with auto every GPU",
    )
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        default="auto",
        description="ddp: each process has the whole base model; fsdp: each has a part of it and gathers layer by "
        "layer (FSDP2, Zhao et al. 2023, arXiv:2304.11277); auto: fsdp where no plan with the whole model fits",
    )

    def misfit(self, blocks: int) -> str | None:
        """What is wrong with ``processes`` for an optimiser step of so many blocks, or None."""
        return None if self.processes == "auto" else no_divisor(self.processes, blocks)


def no_divisor(number: int, blocks: int, each: str = "") -> str | None:
    """What is wrong with a number that is to divide the blocks of an optimiser step, or of ``each``; or None."""
    if blocks % number == 0:
        return None
    return (
        f"{number} does not divide the {blocks} blocks of an optimiser step (training.batch_size x "
        f"gradient_accumulation){each}; use one of {', '.join(map(str, divisors(blocks)))}"
    )


def divisors(number: int) -> list[int]:
    """From 1 to the number itself."""
    return [one for one in range(1, number + 1) if number % one == 0]
