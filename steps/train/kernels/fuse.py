"""Puts the fused functions into a loaded PEFT model, in place, and says what was fused and what was not."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from steps.train.kernels import libraries
from steps.train.kernels.attention import LONGEST, AttentionSite, install_attention, takes
from steps.train.kernels.forwards import SharedInput, install_mlp, install_norm, ranks
from steps.train.kernels.layers import decoder_layers
from steps.train.kernels.recognise import is_llama_norm, is_swiglu, obstacle, other_dropout
from steps.train.kernels.residual import Part, fuse_layers, handlings
from steps.train.kernels.weights import Scratch
from steps.train.plan.plan import Plan
from steps.train.plan.shape import MLP, SIBLINGS

if TYPE_CHECKING:
    from peft import PeftModel

LAST = ("o_proj", "down_proj")
"""Children whose output their module returns."""


@dataclass
class Fusion:
    """What ``fuse`` did, for logs and reports."""

    projections: int = 0
    mlps: int = 0
    attentions: int = 0
    norms: int = 0
    layers: int = 0
    choices: list[str] = field(default_factory=list)  # one line each: what, and why
    left: dict[str, str] = field(default_factory=dict)  # module that stays PEFT's -> why
    scratch: Scratch = field(default_factory=Scratch, repr=False)

    def __str__(self) -> str:
        kinds: dict[str, int] = {}
        for why in self.left.values():
            kinds[why] = kinds.get(why, 0) + 1
        left = [f"{count} left to PEFT: {why}" for why, count in kinds.items()]
        counts = f"{self.mlps} MLPs, {self.attentions} attentions, {self.norms} norms, {self.layers} layers"
        fused = f"fused {self.projections} projections, {counts}"
        return "; ".join([fused, *self.choices, *left])


def fuse(model: "PeftModel", plan: Plan) -> Fusion:
    """Replace the forward passes of LoRA projections, MLPs, norms and layers by fused ones that compute the same.

    Call it once, after the trainer has made the PEFT model and before training; leave the trainer's own
    gradient checkpointing off. Weights, names and saved files stay as they were. What cannot be fused keeps its path.

    Args:
        model: 4-bit base with plain LoRA adapters.
        plan: which layers are recomputed, what the others recompute, and which hold their weights dequantised: the
            same numbers, more memory, no work in each pass.
    """
    from peft.tuners.lora import LoraLayer

    fusion = Fusion()
    plain: dict[str, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            why = obstacle(module)
            if why:
                fusion.left[name] = why
            else:
                plain[name] = module
    layers = decoder_layers(model)
    parts = {name: Part(handling) for name, handling in handlings(layers, plan).items()}
    for name, module in list(model.named_modules()):
        children = {
            child: plain[f"{name}.{child}"] for child, _ in module.named_children() if f"{name}.{child}" in plain
        }
        if children:
            _fuse_block(module, children, fusion, parts.setdefault(name, Part()))
    fusion.projections = len(plain)
    if plain:
        _fuse_norms(model, fusion, parts)
        fusion.choices += [_fuse_attention(model, fusion, parts), libraries.rotary(model)]
    preserve = other_dropout(model, fusion.left) is not None  # our own seeds are kept
    fusion.layers = fuse_layers(layers, parts, plan, fusion.scratch, preserve_rng_state=preserve)
    fusion.choices += _said(plan, len(layers))
    return fusion


def _fuse_block(module: torch.nn.Module, children: dict[str, Any], fusion: Fusion, part: Part) -> None:
    """Fuse the projections that are children of one module."""
    scratch, hold = fusion.scratch, part.handling.hold
    for last in LAST:
        if last in children:
            part.gradient_margin = sum(ranks([children[last]]))
    for siblings in SIBLINGS:
        part.margin += sum(ranks([children[child] for child in siblings if child in children]))
    if children.keys() >= set(MLP) and is_swiglu(module):
        layers = [children.pop(child) for child in MLP]
        install_mlp(module, layers, scratch, remake_gate_up=part.handling.remake_gate_up, hold=hold)
        fusion.mlps += 1
    for siblings in SIBLINGS:
        together = [children.pop(child) for child in siblings if child in children]
        if together:
            SharedInput(together, scratch, siblings[0], hold).install()
    for child, layer in children.items():
        SharedInput([layer], scratch, child, hold).install()


def _fuse_norms(model: torch.nn.Module, fusion: Fusion, parts: dict[str, Part]) -> None:
    """Fuse Llama's norms; those at the model's end feed no projection and are not remembered."""
    for name, module in model.named_modules():
        if "norm" in name.rsplit(".", 1)[-1] and is_llama_norm(module):
            part = parts.setdefault(name, Part())
            part.norm = module
            remake = part.handling.remake_norms and name.endswith("layernorm")
            install_norm(module, fusion.scratch, remake=remake)
            fusion.norms += 1


def _fuse_attention(model: "PeftModel", fusion: Fusion, parts: dict[str, Part]) -> str:
    """Fuse attention and its rotary embedding where flash attention would run; says what attention runs on."""
    chosen = libraries.attention(model)
    for name, module in model.named_modules():
        if takes(module):
            part = parts.get(name, Part())
            # its result is o_proj's input, its gradients those of what q_proj, k_proj and v_proj give: the same ranks
            site = AttentionSite(fusion.scratch, margin=part.gradient_margin, gradient_margin=part.margin)
            install_attention(module, site)
            fusion.attentions += 1
    if not fusion.attentions:
        return chosen
    return f"attention with the rotary embedding inside, by Triton; where a sequence exceeds {LONGEST} tokens, {chosen}"


def _said(plan: Plan, layers: int) -> list[str]:
    """How the layers are carried out, in words."""
    recomputed, held = min(plan.recomputed_layers, layers), min(plan.held_layers, layers)
    others = [f"the others recompute {plan.recompute}"] if recomputed < layers else []
    return [f"{recomputed} of {layers} layers recomputed", *others, f"weights of {held} layers dequantised and held"]
