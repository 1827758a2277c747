"""Puts the fused functions into a loaded PEFT model, in place, and says what was fused and what was not."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from steps.train.kernels import libraries
from steps.train.kernels.forwards import SharedInput, install_mlp, install_norm
from steps.train.kernels.layers import decoder_layers, recompute_layers
from steps.train.kernels.recognise import is_llama_norm, is_lora, is_swiglu, obstacle, other_dropout
from steps.train.kernels.weights import Scratch
from steps.train.plan.plan import Plan

if TYPE_CHECKING:
    from peft import PeftModel

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Children of one module that read the same input."""


@dataclass
class Fusion:
    """What ``fuse`` did, for logs and reports."""

    projections: int = 0
    shared_inputs: int = 0
    mlps: int = 0
    norms: int = 0
    choices: list[str] = field(default_factory=list)  # one line each: what, and why
    left: dict[str, str] = field(default_factory=dict)  # module that stays PEFT's -> why
    scratch: Scratch = field(default_factory=Scratch, repr=False)

    def __str__(self) -> str:
        kinds: dict[str, int] = {}
        for why in self.left.values():
            kinds[why] = kinds.get(why, 0) + 1
        left = [f"{count} left to PEFT: {why}" for why, count in kinds.items()]
        fused = f"fused {self.projections} projections, {self.mlps} MLPs, {self.norms} norms"
        return "; ".join([fused, *self.choices, *left])


@dataclass(frozen=True)
class Handling:
    """How the parts of one decoder layer are carried out."""

    remake_norms: bool = False
    remake_gate_up: bool = False
    hold: bool = False


def fuse(model: "PeftModel", plan: Plan) -> Fusion:
    """Replace the forward passes of LoRA projections, MLPs and norms by fused ones where they compute the same.

    Call it once, after the trainer has made the PEFT model and before training; leave the trainer's own
    gradient checkpointing off. Weights, names and saved files stay as they were. Layers that cannot be fused keep
    PEFT's path.

    Args:
        model: 4-bit base with plain LoRA adapters.
        plan: which layers are recomputed, what the others recompute, and which hold their weights dequantised: the
            same numbers, more memory, no work in each pass.
    """
    fusion = Fusion()
    plain: dict[str, Any] = {}
    for name, module in model.named_modules():
        if is_lora(module):
            why = obstacle(module)
            if why:
                fusion.left[name] = why
            else:
                plain[name] = module
    layers = decoder_layers(model)
    handling = _handling(layers, plan)
    for name, module in list(model.named_modules()):
        children = {
            child: plain[f"{name}.{child}"] for child, _ in module.named_children() if f"{name}.{child}" in plain
        }
        if children:
            _fuse_block(module, children, fusion, handling.get(name, Handling()))
    fusion.projections = len(plain)
    if plain:
        _fuse_norms(model, fusion, handling)
        fusion.choices += [libraries.rotary(model), libraries.attention(model)]
    _recompute(model, list(layers.values()), plan, fusion)
    return fusion


def _handling(layers: dict[str, torch.nn.Module], plan: Plan) -> dict[str, Handling]:
    """By the name of each module of a decoder layer; a recomputed layer keeps all, for as long as it is there."""
    result: dict[str, Handling] = {}
    for number, (name, layer) in enumerate(layers.items()):
        kept = number >= plan.recomputed_layers
        handling = Handling(
            remake_norms=kept and plan.recompute in ("norms", "mlp"),
            remake_gate_up=kept and plan.recompute == "mlp",
            hold=number < plan.held_layers,
        )
        result |= {f"{name}.{inner}": handling for inner, _ in layer.named_modules() if inner}
    return result


def _fuse_block(module: torch.nn.Module, children: dict[str, Any], fusion: Fusion, handling: Handling) -> None:
    """Fuse the projections that are children of one module."""
    scratch, hold = fusion.scratch, handling.hold
    if {"gate_proj", "up_proj", "down_proj"} <= children.keys() and is_swiglu(module):
        layers = [children.pop(child) for child in ("gate_proj", "up_proj", "down_proj")]
        install_mlp(module, layers, scratch, remake_gate_up=handling.remake_gate_up, hold=hold)
        fusion.mlps += 1
    for siblings in SIBLINGS:
        together = [children.pop(child) for child in siblings if child in children]
        if together:
            SharedInput(together, scratch, siblings[0], hold).install()
            fusion.shared_inputs += len(together) > 1
    for child, layer in children.items():
        SharedInput([layer], scratch, child, hold).install()


def _fuse_norms(model: torch.nn.Module, fusion: Fusion, handling: dict[str, Handling]) -> None:
    """Fuse Llama's norms; those at the model's end feed no projection and are not remembered."""
    for name, module in model.named_modules():
        if "norm" in name.rsplit(".", 1)[-1] and is_llama_norm(module):
            remake = handling.get(name, Handling()).remake_norms and name.endswith("layernorm")
            install_norm(module, fusion.scratch, remake=remake)
            fusion.norms += 1


def _recompute(model: "PeftModel", layers: list[torch.nn.Module], plan: Plan, fusion: Fusion) -> None:
    """Switch on the recomputation of layers, and say how all are carried out."""
    recomputed, held = layers[: plan.recomputed_layers], layers[: plan.held_layers]
    if recomputed:
        dropout = other_dropout(model, fusion.left)  # our own seeds are kept
        recompute_layers(recomputed, fusion.scratch, preserve_rng_state=dropout is not None)
    fusion.choices.append(f"{len(recomputed)} of {len(layers)} layers recomputed")
    if len(recomputed) < len(layers):
        fusion.choices.append(f"the others recompute {plan.recompute}")
    fusion.choices.append(f"weights of {len(held)} layers dequantised once and held")
