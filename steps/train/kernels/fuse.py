"""Puts the fused functions into a loaded PEFT model, in place, and says what was fused and what was not."""

from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from steps.train.kernels import libraries
from steps.train.kernels.forwards import SharedInput, install_mlp, install_norm
from steps.train.kernels.recognise import is_llama_norm, is_lora, is_swiglu, obstacle
from steps.train.kernels.seeds import Drawn
from steps.train.kernels.weights import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from transformers import PreTrainedModel

Recompute = Literal["nothing", "norms", "mlp", "layers"]
"""What the backward pass makes again instead of keeping it, each with all before it: the norms' outputs; gate and up
of the MLP; whole layers. SwiGLU's product is never kept."""

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Children of one module that read the same input."""
ENDS_IN_A_SUM = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Decoder layers that end in residual + MLP, so that nothing of a recomputed layer reads the MLP's output."""


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


def fuse(model: "PeftModel", *, recompute: Recompute = "nothing", hold: bool = False) -> Fusion:
    """Replace the forward passes of LoRA projections, MLPs and norms by fused ones where they compute the same.

    Call it once, after the trainer has made the PEFT model and before training; leave the trainer's own
    gradient checkpointing off. Weights, names and saved files stay as they were. Layers that cannot be fused keep
    PEFT's path.

    Args:
        model: 4-bit base with plain LoRA adapters.
        recompute: what is made again in the backward pass to save memory.
        hold: dequantise the weights once and keep them: the same numbers, more memory, no work in each pass.
    """
    fusion = Fusion()
    scratch = fusion.scratch
    plain: dict[str, Any] = {}
    for name, module in model.named_modules():
        if is_lora(module):
            why = obstacle(module)
            if why:
                fusion.left[name] = why
            else:
                plain[name] = module
    for name, module in list(model.named_modules()):
        children = {
            child: plain[f"{name}.{child}"] for child, _ in module.named_children() if f"{name}.{child}" in plain
        }
        if children:
            _fuse_block(name, module, children, scratch, fusion, recompute, hold)
    fusion.projections = len(plain)
    if plain:
        _fuse_norms(model, scratch, fusion, remake=recompute in ("norms", "mlp"))
        fusion.choices += [libraries.rotary(model), libraries.attention(model)]
    fusion.choices.append(f"recompute {recompute}")
    fusion.choices.append("weights dequantised once and held" if hold else "weights dequantised in each pass")
    if recompute == "layers":
        _checkpoint_layers(model, fusion)
    return fusion


def _fuse_block(
    name: str,
    module: torch.nn.Module,
    children: dict[str, Any],
    scratch: Scratch,
    fusion: Fusion,
    recompute: Recompute,
    hold: bool,
) -> None:
    """Fuse the projections that are children of one module."""
    if {"gate_proj", "up_proj", "down_proj"} <= children.keys() and is_swiglu(module):
        layers = [children.pop(child) for child in ("gate_proj", "up_proj", "down_proj")]
        install_mlp(module, layers, scratch, remake_gate_up=recompute == "mlp", hold=hold)
        fusion.mlps += 1
    for siblings in SIBLINGS:
        together = [children.pop(child) for child in siblings if child in children]
        if together:
            SharedInput(together, scratch, siblings[0], hold).install()
            fusion.shared_inputs += len(together) > 1
    for child, layer in children.items():
        SharedInput([layer], scratch, child, hold).install()


def _fuse_norms(model: torch.nn.Module, scratch: Scratch, fusion: Fusion, *, remake: bool) -> None:
    """Fuse Llama's norms; those at the model's end feed no projection and are not remembered."""
    for name, module in model.named_modules():
        if "norm" in name.rsplit(".", 1)[-1] and is_llama_norm(module):
            install_norm(module, scratch, remake=remake and name.endswith("layernorm"))
            fusion.norms += 1


def _checkpoint_layers(model: "PeftModel", fusion: Fusion) -> None:
    """Have transformers recompute whole layers, less what nothing reads then."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    skips = all(type(layer).__name__ in ENDS_IN_A_SUM for layer in layers)
    scratch = fusion.scratch

    @contextmanager
    def recomputing(kept: list[Drawn]) -> "Iterator[None]":
        scratch.recomputing = skips
        try:
            with scratch.seeds.again(kept):
                yield
        finally:
            scratch.recomputing = False

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        kept: list[Drawn] = []
        return scratch.seeds.keeping(kept), recomputing(kept)

    base = cast("PreTrainedModel", model.get_base_model())
    preserve = other_dropout(model, fusion) is not None  # our own seeds are kept
    options = {"use_reentrant": False, "context_fn": contexts, "preserve_rng_state": preserve}
    base.gradient_checkpointing_enable(options)  # type: ignore[no-untyped-call]  # transformers has no types there


def other_dropout(model: "PeftModel", fusion: Fusion) -> str | None:
    """What draws random numbers in training besides the fused layers, or None."""
    config: Any = model.get_base_model().config
    if getattr(config, "attention_dropout", 0):
        return f"attention_dropout {config.attention_dropout}"
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and module.p:
            owner = name.split(".lora_dropout.")[0]
            if owner == name or owner in fusion.left:
                return f"{name} with p={module.p}"
    return None
