"""Floating-point operations of a training, and the share of the card's peak that they make up."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from steps.rows import batches_of, list_lengths
from steps.train.plan.cards import CARDS

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

PEAK_FLOPS = {card.cuda_name: card.flops for card in CARDS}
"""Peak FLOP/s by the name that CUDA gives the card; a card that is not in the table has no utilisation."""


@dataclass(frozen=True)
class FlopPerToken:
    """Operations for one token of training: what the model needs, and what is computed, recomputation included."""

    model: float
    computed: float


def flop_per_token(model: "PeftModel", context: float, *, recomputed_layers: int) -> FlopPerToken:
    """Count the products of matrices, two operations for each multiplication and addition.

    For each weight of a frozen linear layer 4: 2 forward and 2 backward, for the gradient of its input; the gradient
    of the weight itself, which makes it 6 in full training, isn't computed (QLoRA, Dettmers et al. 2023,
    arXiv:2305.14314, section 3). For each weight of a linear layer that is trained (LoRA's A and B) 6. Attention: 12
    times layers, width of all heads and context, as in PaLM (Chowdhery et al. 2022, arXiv:2204.02311, appendix B); but
    where PaLM takes the block's length, ``context`` leaves out what the mask does.

    Gradient checkpointing computes the forward pass of layers, but not of the output layer, once more: 6 for each
    frozen weight there, 8 for each trained one, 16 for attention. Utilisation of the model leaves that out, as in
    PaLM, so that a run can't look better by computing things twice.

    Not counted: the embedding, norms, activation functions, optimiser, dequantisation, DoRA's norms. Every expert of a
    mixture counts as if it saw every token, and a sliding window as if there were none. tests/train/test_figures.py
    compares with what torch counts.

    Args:
        model: a model with its adapter.
        context: tokens that a token sees, itself included; the mean.
        recomputed_layers: decoder layers that are computed again in the backward pass.
    """
    import torch

    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    sizes = [(one.in_features * one.out_features, one.weight.requires_grad) for one in linear]
    frozen = sum(size for size, trained in sizes if not trained)
    trained = sum(size for size, trained in sizes if trained)
    base = cast("PreTrainedModel", model.get_base_model())
    text = base.config.get_text_config()
    attention = text.num_hidden_layers * _heads_width(text) * context
    needed = 4 * frozen + 6 * trained + 12 * attention
    output = cast("torch.nn.Linear", base.get_output_embeddings())  # type: ignore[no-untyped-call]  # transformers has no types there
    again = 2 * (frozen - output.in_features * output.out_features + trained) + 4 * attention
    return FlopPerToken(model=needed, computed=needed + again * recomputed_layers / text.num_hidden_layers)


def _heads_width(config: "PretrainedConfig") -> int:
    """Width of all heads of a layer together."""
    heads = int(config.num_attention_heads)
    return heads * int(config.to_dict().get("head_dim") or config.hidden_size // heads)


def mean_context(blocks: Dataset) -> float:
    """How many tokens a token sees, itself included: those of its own sequence up to itself."""
    if "seq_lengths" in blocks.column_names:
        lengths = np.concatenate([pc.list_flatten(table["seq_lengths"]).to_numpy() for table in batches_of(blocks)])
    else:
        lengths = list_lengths(blocks, "input_ids")
    sizes = lengths.astype(np.float64)
    return float((sizes * (sizes + 1) / 2).sum() / sizes.sum())
