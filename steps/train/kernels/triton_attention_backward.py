"""The backward pass of triton_attention.py.

It makes the scores twice, once for the queries and once for keys and values, and so needs no additions across tiles: it
gives the same bits each time.
"""
# Triton's language has no Python types:
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl

from steps.train.kernels.triton_attention import LOG2_E, angles, rotated, unrotated

BY_QUERIES = (64, 32, 4, 3)
"""Queries and keys of a tile, warps, stages; measured on an H100 with heads of 128, as the next one."""
BY_KEYS = (32, 64, 4, 2)

Tensors = tuple[torch.Tensor, ...]


@triton.jit
def _store_rotated_back(to, first, second, rows, inside, stride, cos, sin, HALF: tl.constexpr):
    """Gradients of rotated halves, as gradients of what was rotated."""
    c, s = angles(rows, inside, cos, sin, HALF)
    at = rows[:, None].to(tl.int64) * stride + tl.arange(0, HALF)[None, :]
    tl.store(to + at, (first * c + second * s).to(to.dtype.element_ty), mask=inside[:, None])
    tl.store(to + HALF + at, (second * c - first * s).to(to.dtype.element_ty), mask=inside[:, None])


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
    slope = unrotated(by_out + head * WIDTH, rows, inside, by_out_stride, WIDTH)
    result = unrotated(out + head * WIDTH, rows, inside, out_stride, WIDTH)
    mean = tl.sum(slope.to(tl.float32) * result.to(tl.float32), 1)
    tl.store(weighted + head * tokens + rows, mean, mask=inside)
    sum_ = tl.load(sums + head * tokens + rows, mask=inside, other=0.0)
    q1, q2 = rotated(q + head * WIDTH, rows, inside, q_stride, cos, sin, HALF)
    by1 = tl.zeros((QUERIES, HALF), tl.float32)
    by2 = tl.zeros((QUERIES, HALF), tl.float32)
    k += (head // GROUP) * WIDTH
    v += (head // GROUP) * WIDTH
    first = top - tl.load(positions + top).to(tl.int32)
    for start in range(first, tl.minimum(top + QUERIES, tokens), KEYS):
        columns = start + tl.arange(0, KEYS)
        there = columns < tokens
        k1, k2 = rotated(k, columns, there, k_stride, cos, sin, HALF)
        values = unrotated(v, columns, there, v_stride, WIDTH)
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
    k1, k2 = rotated(k + head * WIDTH, columns, there, k_stride, cos, sin, HALF)
    values = unrotated(v + head * WIDTH, columns, there, v_stride, WIDTH)
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
            q1, q2 = rotated(q + at * WIDTH, rows, inside, q_stride, cos, sin, HALF)
            slope = unrotated(by_out + at * WIDTH, rows, inside, by_out_stride, WIDTH)
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


def backward(by_out: torch.Tensor, saved: Tensors, width: int, longest: int, gradients: Tensors) -> None:
    """See attention.backward."""
    weighted = torch.empty_like(saved[-1])
    _queries_gradient(by_out, saved, width, weighted, gradients[0])
    _keys_gradients(by_out, saved, width, weighted, longest, gradients[1:])


def _queries_gradient(
    by_out: torch.Tensor, saved: Tensors, width: int, weighted: torch.Tensor, by_q: torch.Tensor
) -> None:
    """Fills ``weighted``, too: each query's gradient of its answer times the answer, for :func:`_keys_gradients`."""
    q, k, v, cos, sin, positions, out, sums = saved
    queries, keys, warps, stages = BY_QUERIES
    _backward_queries[(q.shape[1] // width, triton.cdiv(q.shape[0], queries))](
        *(q, k, v, cos, sin, positions, out, sums, by_out, by_q, weighted),
        *(one.stride(0) for one in (q, k, v, out, by_out, by_q)),
        q.shape[0],
        LOG2_E * width**-0.5,
        width**-0.5,
        GROUP=q.shape[1] // k.shape[1],
        HALF=width // 2,
        QUERIES=queries,
        KEYS=keys,
        num_warps=warps,
        num_stages=stages,
    )


def _keys_gradients(
    by_out: torch.Tensor, saved: Tensors, width: int, weighted: torch.Tensor, longest: int, gradients: Tensors
) -> None:
    q, k, v, cos, sin, positions, _, sums = saved
    by_k, by_v = gradients
    queries, keys, warps, stages = BY_KEYS
    _backward_keys[(k.shape[1] // width, triton.cdiv(q.shape[0], keys))](
        *(q, k, v, cos, sin, positions, sums, by_out, weighted, by_k, by_v),
        *(one.stride(0) for one in (q, k, v, by_out, by_k, by_v)),
        q.shape[0],
        LOG2_E * width**-0.5,
        width**-0.5,
        GROUP=q.shape[1] // k.shape[1],
        HALF=width // 2,
        LONGEST=triton.next_power_of_2(longest),
        QUERIES=queries,
        KEYS=keys,
        num_warps=warps,
        num_stages=stages,
    )
