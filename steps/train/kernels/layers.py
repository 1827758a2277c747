"""Decoder layers whose sums are made together with the norms after them, and layers made again as a whole."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

from steps.train.kernels.norm import Normed, NormSite
from steps.train.kernels.seeds import Drawn
from steps.train.kernels.weights import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

Forward = Callable[..., Any]

BOUNDS = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
"""Where packed sequences begin and end."""


def decoder_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Layers that transformers can recompute, by name, in the order in which they run."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)}


def without_positions(options: dict[str, Any]) -> dict[str, Any]:
    """What attention is called with: beside bounds no positions, in which it would look for bounds all the same.

    That would take each layer some small kernels.
    """
    return {**options, "position_ids": None} if options.keys() >= BOUNDS else options


def recomputation(scratch: Scratch, *, skips: bool, preserve_rng_state: bool) -> Forward:
    """torch's checkpoint, with the seeds that the forward pass drew.

    Args:
        scratch: of the fused model.
        skips: nothing of a recomputed layer reads its MLP's output.
        preserve_rng_state: something besides the fused layers draws random numbers.
    """

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

    return partial(checkpoint, use_reentrant=False, context_fn=contexts, preserve_rng_state=preserve_rng_state)


def recompute_as_transformers(layer: Any, run: Forward) -> None:
    """Have transformers recompute one layer: its own switch turns on all layers of a model."""
    layer._gradient_checkpointing_func, layer.gradient_checkpointing = run, True


@dataclass(frozen=True)
class Sites:
    """The norms of one layer: before the attention, before the MLP, and the one that reads the layer's sum."""

    first: NormSite
    middle: NormSite
    following: NormSite | None  # None where the sum is not to be handed on with its norm


def install_layer(layer: Any, sites: Sites, run: Forward | None) -> None:
    """Replace the forward of a decoder layer that ``recognise.is_norm_first`` knows; ``run`` recomputes it."""
    plain, scratch = layer.forward, sites.first.scratch
    wants_positions = "position_ids" in inspect.signature(layer.self_attn.forward).parameters

    def fused(hidden_states: torch.Tensor, **rest: Any) -> torch.Tensor:
        normed: Normed | None = scratch.normed.take(hidden_states)
        residual = hidden_states
        if not wants_positions:
            rest = without_positions(rest)
        if normed is None or normed.module is not sites.first.module:
            residual, normed = sites.first(residual, None)
        scratch.inputs.give(normed.known, normed.output)
        delta, _ = layer.self_attn(hidden_states=normed.output, **rest)
        residual, normed = sites.middle(residual, delta)
        scratch.inputs.give(normed.known, normed.output)
        delta = layer.mlp(normed.output)
        if sites.following is None:
            total: torch.Tensor = residual + delta
            return total
        residual, normed = sites.following(residual, delta)
        scratch.normed.give(normed, residual)
        return residual

    def forward(hidden_states: torch.Tensor, **rest: Any) -> Any:
        if not layer.training or not torch.is_grad_enabled():
            return plain(hidden_states, **rest)
        if run is not None:
            rest |= {"past_key_values": None, "use_cache": False}  # it would be filled twice
        ours = rest.get("past_key_values") is None and hidden_states.dtype == sites.first.module.weight.dtype
        chosen = fused if ours else plain
        return chosen(hidden_states, **rest) if run is None else run(partial(chosen, **rest), hidden_states)

    layer.forward = forward
