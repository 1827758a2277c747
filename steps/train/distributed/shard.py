"""FSDP2 for a 4-bit model with an adapter: each process keeps a part of every weight and gathers layer by layer."""

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

from steps.device import Device
from steps.errors import ConfigError
from steps.train.adapter import trainable
from steps.train.distributed.ranks import Ranks
from steps.train.params import TrainingParameters

if TYPE_CHECKING:
    from peft import PeftModel

OPTIMIZERS = ("adamw_torch_fused", "adamw_torch", "sgd")
"""torch's own that take weights in parts: bitsandbytes' and Adafactor need a whole one."""

KEY = "parameters.plan.distributed.strategy"


def require_parts(training: TrainingParameters) -> None:
    """The recipe must not need a whole weight outside of its layer.

    Raises:
        ConfigError: it does.
    """
    lora = training.lora
    checks = (
        (training.optimizer not in OPTIMIZERS, f"optimizer {training.optimizer}", f"one of {', '.join(OPTIMIZERS)}"),
        (training.precision == "float16", "precision float16", "bfloat16 or float32"),
        (lora.dora, "lora.dora", "LoRA without it"),
        (lora.initialization == "eva", "lora.initialization eva", "default, gaussian or loftq"),
        (bool(lora.modules_to_save), "lora.modules_to_save", "an adapter alone"),
        (lora.bias != "none", f"lora.bias {lora.bias}", "none"),
    )
    for there, what, instead in checks:
        if there:
            raise ConfigError(f"{KEY}: fsdp does not go with parameters.training.{what}; use {instead}, or ddp")


def shard(model: "PeftModel", device: Device, ranks: Ranks) -> None:
    """Leave this process its part of every weight, on its device; the model is whole and on the processor before.

    The 4-bit numbers are looked at as numbers of the device's precision, bit for bit, which is what bitsandbytes' and
    PEFT's ``bnb_4bit_quant_storage`` does when a model is quantised: all weights of a layer then have one type and are
    gathered as one message. bitsandbytes finds their constants, which every process has, at the layer.
    """
    from bitsandbytes.nn.modules import Linear4bit
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    place = torch.device(device.kind)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            weight: Any = module.weight
            module.quant_state, module.quant_storage = weight.quant_state, device.dtype
            module.quant_state.to(place)
            packed = weight.data.flatten().view(device.dtype)[:, None]
            module.weight = torch.nn.Parameter(packed, requires_grad=False)
    base: Any = model.get_base_model()
    mesh = init_device_mesh(device.kind, (ranks.size,))
    for layer in base.base_model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # losses are shares of one sum, so gradients add up
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    base.hf_device_map = {"": 0 if device.kind == "cuda" else "cpu"}


def whole(weight: torch.Tensor) -> torch.Tensor:
    """A weight of which each process may have a part, gathered; all processes ask for it."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def part(weight: torch.Tensor) -> torch.Tensor:
    """What this process has of a weight."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def gather_adapter(model: torch.nn.Module) -> None:
    """Give the adapter's weights back as a whole, in the processor's memory; the model is not to be called again."""
    for name, weight in trainable(model).items():
        owner, _, own = name.rpartition(".")
        gathered = whole(weight.detach()).cpu()
        model.get_submodule(owner)._parameters[own] = torch.nn.Parameter(gathered)
