"""What is to be planned: model, recipe and device together."""

from dataclasses import dataclass, field
from functools import cached_property

from steps.device import Device
from steps.quantize.params import QuantizationParameters
from steps.train.params import TrainingParameters
from steps.train.plan.shape import SIBLINGS, Linear, ModelShape

WELL_FILLED = 0.8
"""Least mean length of blocks over the longest at which it pays to fill a micro-batch up, as a captured one is."""


@dataclass(frozen=True)
class Adapted:
    """The linear layers with an adapter, in numbers of one decoder layer (the mean where they differ)."""

    count: float
    inputs: float  # sum of their widths
    outputs: float
    dequantised: int  # their weights as the fused kernels lay them out: side by side, with room for A and B
    children: frozenset[str]  # their names within their modules
    left: float  # sum of the inputs of those that PEFT carries out in a fused model too, since they have a bias
    whole_mlp: bool  # whether the fused kernels have the whole MLP


@dataclass(frozen=True)
class Job:
    """All that a prediction reads besides the plan."""

    shape: ModelShape
    training: TrainingParameters
    device: Device
    block: int  # tokens of a block
    packed: bool = True  # whether blocks lie one after the other and say where their sequences begin
    filled: float = 1.0  # mean tokens of a block over those of the longest
    quantization: QuantizationParameters = field(default_factory=QuantizationParameters)
    liger: bool = False  # whether plain TRL runs with liger's kernels, as only benchmarks do
    processes: int = 1  # that share an optimiser step
    obstacle: str | None = None  # why the model cannot be fused ("": it can); None: as far as its shape tells

    @property
    def blocks(self) -> int:
        """Blocks of an optimiser step that one process takes."""
        return self.training.batch_size * self.training.gradient_accumulation // self.processes

    @cached_property
    def adapted(self) -> Adapted:
        """The layers that get an adapter."""
        targeted, layers = self.shape.targeted(self.training.lora), self.shape.layers
        return Adapted(
            count=len(targeted) / layers,
            inputs=sum(one.inputs for one in targeted) / layers,
            outputs=sum(one.outputs for one in targeted) / layers,
            dequantised=_laid_out(targeted, self.training.lora.r) // layers,
            children=frozenset(one.child for one in targeted),
            left=sum(one.inputs for one in targeted if one.bias) / layers,
            whole_mlp=self.shape.fuses_mlp(self.training.lora),
        )

    @cached_property
    def not_fused(self) -> str:
        """Why the fused kernels are not to be had, "" where they are."""
        if self.obstacle is not None:
            return self.obstacle
        return self.shape.obstacle(self.training.lora, self.quantization)

    @cached_property
    def not_captured(self) -> str:
        """Why a micro-batch cannot be replayed as a CUDA graph, "" where it can."""
        checks = (
            (self.device.kind == "cpu", "only GPUs have CUDA graphs"),
            (bool(self.not_fused), "only fused kernels are captured"),
            (self.device.attention != "flash_attention_2", "it needs flash_attention_2"),
            (self.filled < WELL_FILLED, "blocks of very different lengths would be filled up (prompt.packing none)"),
            (self.device.precision == "float16", "float16's loss scaling waits for the host"),
        )
        return next((why for there, why in checks if there), "")

    @cached_property
    def trained(self) -> int:
        """Parameters of LoRA."""
        return self.shape.lora_parameters(self.training.lora)

    @cached_property
    def trained_whole(self) -> int:
        """Parameters of the modules that are trained as a whole, in float32."""
        return self.shape.saved_parameters(self.training.lora)

    @property
    def trained_bytes(self) -> int:
        """Bytes of all that is trained."""
        return self.trained * self.adapter_element + self.trained_whole * 4

    @property
    def element(self) -> int:
        """Bytes of a number in the device's precision."""
        return 4 if self.device.precision == "float32" else 2

    @property
    def adapter_element(self) -> int:
        """Bytes of a LoRA weight: steps/train/build.py keeps them in bfloat16 where that is the precision."""
        return 2 if self.device.precision == "bfloat16" else 4


def _laid_out(targeted: list[Linear], rank: int) -> int:
    """Numbers of the matrices that ``FrozenWeights`` makes of layers that read the same input."""
    groups: dict[tuple[str, str], list[Linear]] = {}
    for one in targeted:
        owner = one.name.rpartition(".")[0]
        siblings = next((names for names in SIBLINGS if one.child in names), (one.child,))
        groups.setdefault((owner, siblings[0]), []).append(one)
    return sum(
        (sum(one.outputs for one in group) + rank * len(group)) * (group[0].inputs + rank * len(group))
        for group in groups.values()
    )
