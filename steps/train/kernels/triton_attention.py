"""Causal attention over packed sequences with the rotary embedding inside, in Triton: for short sequences.

Flash attention 2 gives each sequence tiles of its own, sums the gradient of the queries in float32 by atomic additions
and converts it; queries and keys have been rotated in memory before, and their gradients are rotated back after. Here
a tile takes queries of several sequences, meets the keys from the first one's start on, and rotates in registers; the
backward pass is in triton_attention_backward.py. Algorithm: FlashAttention-2 (Dao, 2023, arXiv:2307.08691).

This module needs triton and is imported only where a GPU runs it; its plain-torch twin is in attention.py.
"""
# Triton's language has no Python types:
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl

FORWARD = (64, 32, 4, 3)
"""Queries and keys of a tile, warps, stages; measured on an H100 with heads of 128."""
LOG2_E = 1.4426950408889634


@triton.jit
def angles(rows, inside, cos, sin, HALF: tl.constexpr):
    """Cosines and sines of half a head, in float32; ``rows`` are their tokens."""
    at = rows[:, None].to(tl.int64) * (2 * HALF) + tl.arange(0, HALF)[None, :]
    c = tl.load(cos + at, mask=inside[:, None], other=0.0).to(tl.float32)
    return c, tl.load(sin + at, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def rotated(start, rows, inside, stride, cos, sin, HALF: tl.constexpr):
    """Both halves of heads, rotated; ``rows`` are their tokens."""
    at = rows[:, None].to(tl.int64) * stride + tl.arange(0, HALF)[None, :]
    first = tl.load(start + at, mask=inside[:, None], other=0.0)
    second = tl.load(start + HALF + at, mask=inside[:, None], other=0.0)
    c, s = angles(rows, inside, cos, sin, HALF)
    one, two = first.to(tl.float32), second.to(tl.float32)
    return (one * c - two * s).to(first.dtype), (two * c + one * s).to(first.dtype)


@triton.jit
def unrotated(start, rows, inside, stride, WIDTH: tl.constexpr):
    """Whole heads as they are; ``rows`` are their tokens."""
    at = rows[:, None].to(tl.int64) * stride + tl.arange(0, WIDTH)[None, :]
    return tl.load(start + at, mask=inside[:, None], other=0.0)


@triton.jit
def _forward(
    q,
    k,
    v,
    cos,
    sin,
    positions,
    out,
    sums,
    q_stride,
    k_stride,
    v_stride,
    out_stride,
    tokens,
    scale,
    GROUP: tl.constexpr,
    HALF: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    WIDTH: tl.constexpr = 2 * HALF
    head = tl.program_id(0)  # heads of a token lie side by side
    top = tl.program_id(1) * QUERIES
    rows = top + tl.arange(0, QUERIES)
    inside = rows < tokens
    begins = rows - tl.load(positions + rows, mask=inside, other=0).to(tl.int32)
    q1, q2 = rotated(q + head * WIDTH, rows, inside, q_stride, cos, sin, HALF)
    largest = tl.full((QUERIES,), -1e30, tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, WIDTH), tl.float32)
    k += (head // GROUP) * WIDTH
    v += (head // GROUP) * WIDTH
    first = top - tl.load(positions + top).to(tl.int32)
    for start in range(first, tl.minimum(top + QUERIES, tokens), KEYS):
        columns = start + tl.arange(0, KEYS)
        there = columns < tokens
        k1, k2 = rotated(k, columns, there, k_stride, cos, sin, HALF)
        scores = tl.dot(q1, tl.trans(k1))
        scores = tl.dot(q2, tl.trans(k2), scores) * scale
        seen = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= begins[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        chances = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(chances, 1)
        values = unrotated(v, columns, there, v_stride, WIDTH)
        mixed = tl.dot(chances.to(values.dtype), values, mixed * shrink[:, None])
        largest = larger
    at = rows[:, None].to(tl.int64) * out_stride + head * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(out + at, (mixed / total[:, None]).to(out.dtype.element_ty), mask=inside[:, None])
    tl.store(sums + head * tokens + rows, largest + tl.log2(total), mask=inside)


def forward(inputs: tuple[torch.Tensor, ...], width: int, out: torch.Tensor) -> torch.Tensor:
    """See attention.forward."""
    q, k, v = inputs[:3]
    tokens, heads = q.shape[0], q.shape[1] // width
    sums = q.new_empty(heads, tokens, dtype=torch.float32)
    queries, keys, warps, stages = FORWARD
    _forward[(heads, triton.cdiv(tokens, queries))](
        *(*inputs, out, sums),
        *(one.stride(0) for one in (q, k, v, out)),
        tokens,
        LOG2_E * width**-0.5,
        GROUP=q.shape[1] // k.shape[1],
        HALF=width // 2,
        QUERIES=queries,
        KEYS=keys,
        num_warps=warps,
        num_stages=stages,
    )
    return sums
