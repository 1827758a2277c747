"""Causal attention over packed sequences with the rotary embedding inside, in Triton: for short sequences.

Flash attention 2 gives each sequence tiles of its own, sums the gradient of the queries in float32 by atomic additions
and converts it; queries and keys have been rotated in memory before, and their gradients are rotated back after. Here
a tile takes queries of several sequences, meets the keys from the first one's start on, and rotates in registers. The
backward pass makes the scores twice, once for the queries and once for keys and values, and so needs no
additions across tiles: it gives the same bits each time. Algorithm: FlashAttention-2 (Dao, 2023, arXiv:2307.08691).

This module needs triton and is imported only where a GPU runs it; its plain-torch twin is in attention.py.
"""
# Triton's language has no Python types:
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl

FORWARD = (64, 32, 4, 3)
"""Queries and keys of a tile, warps, stages; measured on an H100 with heads of 128, as the next two."""
BY_QUERIES = (64, 32, 4, 3)
BY_KEYS = (32, 64, 4, 2)
LOG2_E = 1.4426950408889634


@triton.jit
def _rotated(start, rows, inside, stride, cos, sin, HALF: tl.constexpr):
    """Both halves of heads, rotated; ``rows`` are their tokens."""
    half = tl.arange(0, HALF)
    at = rows[:, None].to(tl.int64) * stride + half[None, :]
    first = tl.load(start + at, mask=inside[:, None], other=0.0)
    second = tl.load(start + HALF + at, mask=inside[:, None], other=0.0)
    angle = rows[:, None].to(tl.int64) * (2 * HALF) + half[None, :]
    c = tl.load(cos + angle, mask=inside[:, None], other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=inside[:, None], other=0.0).to(tl.float32)
    one, two = first.to(tl.float32), second.to(tl.float32)
    return (one * c - two * s).to(first.dtype), (two * c + one * s).to(first.dtype)


@triton.jit
def _store_rotated_back(to, first, second, rows, inside, stride, cos, sin, HALF: tl.constexpr):
    """Gradients of rotated halves, as gradients of what was rotated."""
    half = tl.arange(0, HALF)
    angle = rows[:, None].to(tl.int64) * (2 * HALF) + half[None, :]
    c = tl.load(cos + angle, mask=inside[:, None], other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=inside[:, None], other=0.0).to(tl.float32)
    at = rows[:, None].to(tl.int64) * stride + half[None, :]
    tl.store(to + at, (first * c + second * s).to(to.dtype.element_ty), mask=inside[:, None])
    tl.store(to + HALF + at, (second * c - first * s).to(to.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _heads(start, rows, inside, stride, WIDTH: tl.constexpr):
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
    q1, q2 = _rotated(q + head * WIDTH, rows, inside, q_stride, cos, sin, HALF)
    largest = tl.full((QUERIES,), -1e30, tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, WIDTH), tl.float32)
    k += (head // GROUP) * WIDTH
    v += (head // GROUP) * WIDTH
    first = top - tl.load(positions + top).to(tl.int32)
    for start in range(first, tl.minimum(top + QUERIES, tokens), KEYS):
        columns = start + tl.arange(0, KEYS)
        there = columns < tokens
        k1, k2 = _rotated(k, columns, there, k_stride, cos, sin, HALF)
        scores = tl.dot(q1, tl.trans(k1))
        scores = tl.dot(q2, tl.trans(k2), scores) * scale
        seen = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= begins[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        chances = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(chances, 1)
        values = _heads(v, columns, there, v_stride, WIDTH)
        mixed = tl.dot(chances.to(values.dtype), values, mixed * shrink[:, None])
        largest = larger
    at = rows[:, None].to(tl.int64) * out_stride + head * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(out + at, (mixed / total[:, None]).to(out.dtype.element_ty), mask=inside[:, None])
    tl.store(sums + head * tokens + rows, largest + tl.log2(total), mask=inside)


@triton.jit
def _backward_queries(
    q,
    k,
    v,
    cos,
    sin,
    positions,
    out,
    sums,
    by_out,
    by_q,
    weighted,
    q_stride,
    k_stride,
    v_stride,
    out_stride,
    by_out_stride,
    by_q_stride,
    tokens,
    scale,
    plain_scale,
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
    slope = _heads(by_out + head * WIDTH, rows, inside, by_out_stride, WIDTH)
    result = _heads(out + head * WIDTH, rows, inside, out_stride, WIDTH)
    mean = tl.sum(slope.to(tl.float32) * result.to(tl.float32), 1)
    tl.store(weighted + head * tokens + rows, mean, mask=inside)
    sum_ = tl.load(sums + head * tokens + rows, mask=inside, other=0.0)
    q1, q2 = _rotated(q + head * WIDTH, rows, inside, q_stride, cos, sin, HALF)
    by1 = tl.zeros((QUERIES, HALF), tl.float32)
    by2 = tl.zeros((QUERIES, HALF), tl.float32)
    k += (head // GROUP) * WIDTH
    v += (head // GROUP) * WIDTH
    first = top - tl.load(positions + top).to(tl.int32)
    for start in range(first, tl.minimum(top + QUERIES, tokens), KEYS):
        columns = start + tl.arange(0, KEYS)
        there = columns < tokens
        k1, k2 = _rotated(k, columns, there, k_stride, cos, sin, HALF)
        values = _heads(v, columns, there, v_stride, WIDTH)
        scores = tl.dot(q1, tl.trans(k1))
        scores = tl.dot(q2, tl.trans(k2), scores) * scale
        seen = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= begins[:, None])
        chances = tl.where(seen, tl.exp2(scores - sum_[:, None]), 0.0)
        by_scores = (chances * (tl.dot(slope, tl.trans(values)) - mean[:, None])).to(k1.dtype)
        by1 = tl.dot(by_scores, k1, by1)
        by2 = tl.dot(by_scores, k2, by2)
    to = by_q + head * WIDTH
    _store_rotated_back(to, by1 * plain_scale, by2 * plain_scale, rows, inside, by_q_stride, cos, sin, HALF)


@triton.jit
def _backward_keys(
    q,
    k,
    v,
    cos,
    sin,
    positions,
    sums,
    by_out,
    weighted,
    by_k,
    by_v,
    q_stride,
    k_stride,
    v_stride,
    by_out_stride,
    by_k_stride,
    by_v_stride,
    tokens,
    scale,
    plain_scale,
    GROUP: tl.constexpr,
    HALF: tl.constexpr,
    LONGEST: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    WIDTH: tl.constexpr = 2 * HALF
    head = tl.program_id(0)  # heads of a token lie side by side
    top = tl.program_id(1) * KEYS
    columns = top + tl.arange(0, KEYS)
    there = columns < tokens
    k1, k2 = _rotated(k + head * WIDTH, columns, there, k_stride, cos, sin, HALF)
    values = _heads(v + head * WIDTH, columns, there, v_stride, WIDTH)
    by1 = tl.zeros((KEYS, HALF), tl.float32)
    by2 = tl.zeros((KEYS, HALF), tl.float32)
    by_values = tl.zeros((KEYS, WIDTH), tl.float32)
    # the last key's sequence ends where the next position is 0
    after = top + KEYS + tl.arange(0, LONGEST)
    restarts = tl.load(positions + after, mask=after < tokens, other=0) == 0
    end = tl.minimum(tl.min(tl.where(restarts, after, tokens)), tokens)
    for member in range(GROUP):
        at = head * GROUP + member
        for start in range(top, end, QUERIES):
            rows = start + tl.arange(0, QUERIES)
            inside = rows < end
            begins = rows - tl.load(positions + rows, mask=inside, other=0).to(tl.int32)
            q1, q2 = _rotated(q + at * WIDTH, rows, inside, q_stride, cos, sin, HALF)
            slope = _heads(by_out + at * WIDTH, rows, inside, by_out_stride, WIDTH)
            sum_ = tl.load(sums + at * tokens + rows, mask=inside, other=0.0)
            mean = tl.load(weighted + at * tokens + rows, mask=inside, other=0.0)
            scores = tl.dot(k1, tl.trans(q1))
            scores = tl.dot(k2, tl.trans(q2), scores) * scale
            seen = (columns[:, None] <= rows[None, :]) & (columns[:, None] >= begins[None, :]) & inside[None, :]
            chances = tl.where(seen, tl.exp2(scores - sum_[None, :]), 0.0)
            by_values = tl.dot(chances.to(slope.dtype), slope, by_values)
            by_scores = (chances * (tl.dot(values, tl.trans(slope)) - mean[None, :])).to(q1.dtype)
            by1 = tl.dot(by_scores, q1, by1)
            by2 = tl.dot(by_scores, q2, by2)
    to = by_k + head * WIDTH
    _store_rotated_back(to, by1 * plain_scale, by2 * plain_scale, columns, there, by_k_stride, cos, sin, HALF)
    at_values = columns[:, None].to(tl.int64) * by_v_stride + head * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(by_v + at_values, by_values.to(by_v.dtype.element_ty), mask=there[:, None])


Tensors = tuple[torch.Tensor, ...]


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    width: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See attention.forward."""
    tokens, heads = q.shape[0], q.shape[1] // width
    out, sums = q.new_empty(q.shape), q.new_empty(heads, tokens, dtype=torch.float32)
    strides = (q.stride(0), k.stride(0), v.stride(0), out.stride(0))
    queries, keys, warps, stages = FORWARD
    _forward[(heads, triton.cdiv(tokens, queries))](
        q,
        k,
        v,
        cos,
        sin,
        positions,
        out,
        sums,
        *strides,
        tokens,
        LOG2_E * width**-0.5,
        GROUP=q.shape[1] // k.shape[1],
        HALF=width // 2,
        QUERIES=queries,
        KEYS=keys,
        num_warps=warps,
        num_stages=stages,
    )
    return out, sums


def backward(by_out: torch.Tensor, saved: Tensors, width: int, longest: int) -> Tensors:
    """See attention.backward."""
    q, k, v, cos, sin, positions, out, sums = saved
    tokens, heads, group = q.shape[0], q.shape[1] // width, q.shape[1] // k.shape[1]
    by_q, by_k, by_v = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    weighted = torch.empty_like(sums)
    strides = (q.stride(0), k.stride(0), v.stride(0))
    scales = (LOG2_E * width**-0.5, width**-0.5)
    queries, keys, warps, stages = BY_QUERIES
    _backward_queries[(heads, triton.cdiv(tokens, queries))](
        q,
        k,
        v,
        cos,
        sin,
        positions,
        out,
        sums,
        by_out,
        by_q,
        weighted,
        *strides,
        out.stride(0),
        by_out.stride(0),
        by_q.stride(0),
        tokens,
        *scales,
        GROUP=group,
        HALF=width // 2,
        QUERIES=queries,
        KEYS=keys,
        num_warps=warps,
        num_stages=stages,
    )
    queries, keys, warps, stages = BY_KEYS
    _backward_keys[(heads // group, triton.cdiv(tokens, keys))](
        q,
        k,
        v,
        cos,
        sin,
        positions,
        sums,
        by_out,
        weighted,
        by_k,
        by_v,
        *strides,
        by_out.stride(0),
        by_k.stride(0),
        by_v.stride(0),
        tokens,
        *scales,
        GROUP=group,
        HALF=width // 2,
        LONGEST=triton.next_power_of_2(longest),
        QUERIES=queries,
        KEYS=keys,
        num_warps=warps,
        num_stages=stages,
    )
    return by_q, by_k, by_v
