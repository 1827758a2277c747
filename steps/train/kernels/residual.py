"""The residual stream of a model: which norm follows which sum, and what is made where."""

from dataclasses import dataclass

import torch

from steps.train.kernels.layers import Sites, install_layer, recomputation, recompute_as_transformers
from steps.train.kernels.norm import NormSite
from steps.train.kernels.recognise import is_norm_first
from steps.train.kernels.weights import Scratch
from steps.train.plan.plan import Plan


@dataclass(frozen=True)
class Handling:
    """How the parts of one decoder layer are carried out."""

    remake_norms: bool = False
    remake_gate_up: bool = False
    hold: bool = False


@dataclass
class Part:
    """What is known of one module of a model."""

    handling: Handling = Handling()
    margin: int = 0  # columns that its first projections want beside their input
    gradient_margin: int = 0  # columns that its last projection wants beside its output's gradient
    norm: torch.nn.Module | None = None  # itself, where it is a fused norm


def handlings(layers: dict[str, torch.nn.Module], plan: Plan) -> dict[str, Handling]:
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


def fuse_layers(
    layers: dict[str, torch.nn.Module],
    parts: dict[str, Part],
    plan: Plan,
    scratch: Scratch,
    *,
    preserve_rng_state: bool,
) -> int:
    """Install the layers that are known, with the recomputation that the plan asks for; how many are known.

    A sum is handed on with its norm between layers that are kept. Across the bounds of a recomputed one it would have
    to be kept.
    """
    names, installed = list(layers), 0
    for number, (name, layer) in enumerate(layers.items()):
        known, recomputed = is_norm_first(layer), number < plan.recomputed_layers
        run = recomputation(scratch, skips=known, preserve_rng_state=preserve_rng_state) if recomputed else None
        before = parts.get(f"{names[number - 1]}.mlp", Part()) if number else Part()
        following = None if recomputed else (names[number + 1] if number + 1 < len(names) else "")
        sites = _sites(name, before, following, parts, scratch) if known else None
        if sites is not None:
            install_layer(layer, sites, run)
            installed += 1
        elif run is not None:
            recompute_as_transformers(layer, run)
    return installed


def _sites(name: str, before: Part, following: str | None, parts: dict[str, Part], scratch: Scratch) -> Sites | None:
    """The norms of the layer ``name``, or None where they are not fused ones.

    Args:
        name: of the layer.
        before: the MLP whose sum the layer reads.
        following: the next layer, "" for the model's end, None where the sum is handed on alone.
        parts: of the model, by name.
        scratch: of the model.
    """
    attention, mlp = parts.get(f"{name}.self_attn", Part()), parts.get(f"{name}.mlp", Part())
    first = _site(parts.get(f"{name}.input_layernorm"), attention, before, scratch)
    middle = _site(parts.get(f"{name}.post_attention_layernorm"), mlp, attention, scratch)
    if first is None or middle is None:
        return None
    last = None
    if following:
        reader = parts.get(f"{following}.self_attn", Part())
        last = _site(parts.get(f"{following}.input_layernorm"), reader, mlp, scratch)
    elif following == "":
        last = _site(parts.get(f"{name.rsplit('.', 2)[0]}.norm"), Part(), mlp, scratch)
    return Sites(first, middle, last)


def _site(norm: Part | None, reader: Part, writer: Part, scratch: Scratch) -> NormSite | None:
    if norm is None or norm.norm is None:
        return None
    return NormSite(norm.norm, scratch, norm.handling.remake_norms, reader.margin, writer.gradient_margin)
