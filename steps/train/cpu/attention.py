"""Attention over packed sequences one by one, instead of over the whole micro-batch with a mask.

Under a mask every token meets every other one of the micro-batch, and most of that work is thrown away.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "packed_sequences"
"""Under which transformers finds it."""

LONGEST_BY_PRODUCTS = 512
"""Tokens up to which two matrix products are faster than torch's flash attention on a processor, and keep little."""


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function: heads [1, heads, tokens, width] in, [1, tokens, heads, width] out.

    A sequence starts where its positions do. Padded batches, a cache, a window and dropout go to transformers' own.
    """
    alone = position_ids is not None and query.shape[0] == 1 and query.shape[2] == key.shape[2]
    if position_ids is None or not alone or options.get("sliding_window") or options.get("dropout"):
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, position_ids=position_ids, **options
        )
        return result
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    ends = [*starts[1:], query.shape[2]]
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    queries, keys, values = (heads.split_with_sizes(lengths, dim=2) for heads in (query, key, value))
    parts = [_causal(*one, options["scaling"]).transpose(1, 2) for one in zip(queries, keys, values, strict=True)]
    return torch.cat(parts, dim=1), None


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """One sequence; as in transformers' eager attention the scores are in the model's type, the softmax in float32."""
    _, heads, length, width = query.shape
    if length > LONGEST_BY_PRODUCTS:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=True
        )
    groups = key.shape[1]
    together = query.reshape(groups, heads // groups * length, width)  # heads that share keys and values
    scores = ((together * scale) @ key[0].transpose(1, 2)).view(heads, length, length)
    later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    chances = scores.masked_fill_(later, float("-inf")).softmax(-1, dtype=torch.float32).to(query.dtype)
    return (chances.view(groups, heads // groups * length, length) @ value[0]).view(1, heads, length, width)


def register() -> None:
    """Make the name known to transformers; the mask is for the batches that go to its own function."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
