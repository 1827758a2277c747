"""One way to carry out a training on a device."""

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["nothing", "norms", "mlp"]
"""What a decoder layer that is kept makes again in the backward pass, each with all before it: its norms' outputs;
gate and up of its MLP. SwiGLU's product is never kept."""


@dataclass(frozen=True)
class Plan:
    """What is learned does not depend on it: two plans' losses agree within the rounding of the precision.

    ``micro_batch`` x ``accumulation``, x the processes that share the training, is the recipe's number of blocks an
    optimiser step.
    """

    micro_batch: int  # blocks of a forward pass
    accumulation: int  # micro-batches of an optimiser step
    recomputed_layers: int = 0  # the first decoder layers, made again as a whole in the backward pass
    fused: bool = True  # our kernels where they fit; else TRL's and PEFT's path
    recompute: Recompute = "norms"  # of the other layers; of a fused plan alone
    held_layers: int = 0  # the first decoder layers, whose weights are dequantised once; of a fused plan alone
    captured: bool = False  # micro-batches replayed as a CUDA graph; of a fused plan alone
    sharded: bool = False  # each process has a part of every weight and gathers layer by layer (FSDP2)

    def __str__(self) -> str:
        parts = [f"micro-batch {self.micro_batch} x {self.accumulation}"]
        parts.append("fused kernels" if self.fused else "TRL's own kernels")
        if self.recomputed_layers:
            parts.append(f"{self.recomputed_layers} layers recomputed")
        if self.fused and self.recompute != "nothing":
            what = {"norms": "norms", "mlp": "norms, gate and up"}[self.recompute]
            parts.append(f"{what} recomputed" + " in the others" * bool(self.recomputed_layers))
        if self.held_layers:
            parts.append(f"weights of {self.held_layers} layers held in 16 bits")
        parts += ["weights shared out"] * self.sharded
        return ", ".join(parts + ["CUDA graph"] * self.captured)
