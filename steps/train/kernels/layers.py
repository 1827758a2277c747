"""Whole decoder layers that are made again in the backward pass, less what nothing reads then."""

from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

from steps.train.kernels.seeds import Drawn
from steps.train.kernels.weights import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENDS_IN_A_SUM = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Decoder layers that end in residual + MLP, so that nothing of a recomputed layer reads the MLP's output."""


def decoder_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Layers that transformers can recompute, by name, in the order in which they run."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)}


def recompute_layers(layers: "Sequence[torch.nn.Module]", scratch: Scratch, *, preserve_rng_state: bool) -> None:
    """Have these layers recomputed in the backward pass, with the seeds that they drew in the forward pass.

    transformers' own switch turns on all layers of a model; this sets what it would set, layer by layer.
    ``preserve_rng_state``: something besides the fused layers draws random numbers.
    """
    skips = all(type(layer).__name__ in ENDS_IN_A_SUM for layer in layers)

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

    run = partial(checkpoint, use_reentrant=False, context_fn=contexts, preserve_rng_state=preserve_rng_state)
    for layer in layers:
        setattr(layer, "_gradient_checkpointing_func", run)  # noqa: B010 - an attribute that transformers adds
        setattr(layer, "gradient_checkpointing", True)  # noqa: B010 - as above
