"""Causal attention over packed sequences that rotates queries and keys itself: one autograd function."""

import math
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from steps.train.kernels import elementwise
from steps.train.kernels.layers import without_positions
from steps.train.kernels.lora_linear import Known
from steps.train.kernels.memory import aligned_rows
from steps.train.kernels.recognise import is_llama_attention, rotated
from steps.train.kernels.weights import Scratch

WIDTHS = (64, 128)
"""Widths of a head that the kernels take."""
LONGEST = 1024
"""Tokens of the longest sequence up to which they are used instead of flash attention; measured at 512."""


Tensors = tuple[torch.Tensor, ...]


def forward(inputs: Tensors, width: int, out: torch.Tensor) -> torch.Tensor:
    """Attention of each token to those of its sequence up to itself.

    Args:
        inputs: q [tokens, heads * width], not rotated; k and v [tokens, key heads * width], whose rows may have a
            stride as those of q; cos and sin [tokens, width], both halves the same; positions [tokens], of which a
            sequence starts where it is 0.
        width: of a head.
        out: takes the result, [tokens, heads * width]; rows may have a stride.

    Returns:
        log2 of each softmax's sum [heads, tokens] in float32.
    """
    if elementwise.triton_runs(inputs[0]):
        from steps.train.kernels import triton_attention

        return triton_attention.forward(inputs, width, out)
    result, scores = _plain(inputs, width)
    out.copy_(result)
    return scores.float().logsumexp(-1) / math.log(2)


def backward(by_out: torch.Tensor, saved: Tensors, width: int, longest: int, gradients: Tensors) -> None:
    """Fill the gradients of ``q``, ``k`` and ``v``, whose rows may have a stride.

    ``saved``: the tensors that ``forward`` took, ``out``, and what it gave, in this order.
    """
    if elementwise.triton_runs(by_out):
        from steps.train.kernels import triton_attention_backward

        triton_attention_backward.backward(by_out, saved, width, longest, gradients)
        return
    with torch.enable_grad():
        heads = tuple(tensor.detach().requires_grad_() for tensor in saved[:3])
        out, _ = _plain((*heads, *saved[3:6]), width)
    for gradient, found in zip(gradients, torch.autograd.grad(out, heads, by_out), strict=True):
        gradient.copy_(found)


def _plain(inputs: Tensors, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, and scores [heads, tokens, tokens] that are -inf where a token does not see another."""
    q, k, v, cos, sin, positions = inputs
    queries, keys, values = (x.reshape(x.shape[0], -1, width).transpose(0, 1) for x in (q, k, v))
    queries, keys = rotated(queries, cos, sin), rotated(keys, cos, sin)
    group = queries.shape[0] // keys.shape[0]
    scores = queries @ keys.repeat_interleave(group, 0).transpose(1, 2) * width**-0.5
    index = torch.arange(len(positions), device=q.device)
    begins = index - positions
    seen = (index[None, :] <= index[:, None]) & (index[None, :] >= begins[:, None])
    scores = scores.masked_fill(~seen, float("-inf"))
    mixed = scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ values.repeat_interleave(group, 0)
    return mixed.transpose(0, 1).reshape(q.shape), scores


@dataclass(frozen=True)
class AttentionSite:
    """An attention at its place between the projections."""

    scratch: Scratch = field(default_factory=Scratch)
    margin: int = 0  # columns that the projection after it wants beside its result
    gradient_margin: int = 0  # columns that the backward pass of the projections before it wants beside its gradients


@dataclass(frozen=True)
class AttentionCall:
    """What autograd does not see of one call."""

    site: AttentionSite
    room: torch.Tensor  # [tokens, heads * width + margin]: the result is its first columns
    width: int  # of a head
    longest: int  # no sequence has more tokens


class PackedAttention(torch.autograd.Function):
    """``forward`` and ``backward`` of this module, of q, k and v as [1, tokens, ...]."""

    @staticmethod
    def forward(ctx: Any, call: AttentionCall, *inputs: torch.Tensor) -> torch.Tensor:
        """The result: [1, tokens, heads * width]."""
        flat = (*(x[0] for x in inputs[:3]), *inputs[3:])
        out = call.room.data[:, : inputs[0].shape[-1]]  # .data: the margin's writer does not change this tensor
        ctx.save_for_backward(*flat, out, forward(flat, call.width, out))
        ctx.site, ctx.width, ctx.longest = call.site, call.width, call.longest
        return out[None]

    @staticmethod
    def backward(ctx: Any, *by_outs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of queries, keys and values: side by side, as the projections' backward pass reads them."""
        saved, site = ctx.saved_tensors, ctx.site
        widths = [x.shape[-1] for x in saved[:3]]
        room = aligned_rows(saved[0].shape[0], sum(widths) + site.gradient_margin, saved[0])
        flat = room[:, : sum(widths)].split_with_sizes(widths, dim=1)
        backward(by_outs[0][0], saved, ctx.width, ctx.longest, tuple(flat))
        gradients = [gradient[None] for gradient in flat]
        if site.gradient_margin:
            site.scratch.gradients.give(room, *gradients)
        return None, *gradients, None, None, None


def takes(module: torch.nn.Module) -> bool:
    """Whether the kernels compute what this module does, and may run where it lies."""
    config: Any = getattr(module, "config", None)
    if getattr(config, "_attn_implementation", None) != "flash_attention_2" or not is_llama_attention(module):
        return False
    weight = next(module.parameters())
    plain = cast(Any, module).head_dim in WIDTHS and not config.attention_dropout
    return plain and elementwise.triton_runs(weight)


def install_attention(module: torch.nn.Module, site: AttentionSite) -> None:
    """Replace the forward of Llama's attention; what it cannot take goes the former way."""
    plain = module.forward
    attention = cast(Any, module)
    width = int(attention.head_dim)

    def forward(
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        other = attention_mask is not None or past_key_values is not None or hidden_states.shape[0] > 1
        longest = kwargs.get("max_length_q", LONGEST + 1)
        if position_ids is None or other or longest > LONGEST:
            options = without_positions({"position_ids": position_ids, **kwargs})
            result: tuple[torch.Tensor, None] = plain(
                hidden_states, position_embeddings, attention_mask, past_key_values, **options
            )
            return result
        heads = [layer(hidden_states) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
        angles = [table[0] for table in position_embeddings]
        room = aligned_rows(hidden_states.shape[1], heads[0].shape[-1] + site.margin, heads[0])
        out: torch.Tensor = PackedAttention.apply(  # type: ignore[no-untyped-call]  # torch has no types there
            AttentionCall(site, room, width, longest), *heads, *angles, position_ids[0]
        )
        if site.margin:
            site.scratch.inputs.give(Known(room=room), out)
        return attention.o_proj(out), None

    module.forward = forward
