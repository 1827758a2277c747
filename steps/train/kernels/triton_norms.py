"""Norms in Triton, with the sum of the residual stream before them; the plain-torch twins are in elementwise.py.

This module needs triton and is imported only where a GPU runs it.
"""
# Triton's language has no Python types:
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl

WARPS = 8
"""Of the program that norms one row."""


@triton.jit
def _add_norm(
    residual,
    delta,
    weight,
    total,
    normed,
    scales,
    width,
    residual_stride,
    delta_stride,
    normed_stride,
    epsilon,
    ADD: tl.constexpr,
    SCALES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(residual + row * residual_stride + column, mask=inside, other=0.0)
    if ADD:
        other = tl.load(delta + row * delta_stride + column, mask=inside, other=0.0)
        value = (value.to(tl.float32) + other.to(tl.float32)).to(value.dtype)
        tl.store(total + row * width + column, value, mask=inside)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide) / width + epsilon)
    if SCALES:
        tl.store(scales + row, scale)
    factor = tl.load(weight + column, mask=inside, other=0.0)
    tl.store(normed + row * normed_stride + column, factor * (wide * scale).to(value.dtype), mask=inside)


def add_norm(
    residual: torch.Tensor,
    delta: torch.Tensor | None,
    weight: torch.Tensor,
    epsilon: float,
    normed: torch.Tensor,
    scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """See elementwise.add_norm."""
    tokens, width = normed.shape
    left = _rows(residual)
    right = left if delta is None else _rows(delta)
    total = residual if delta is None else torch.empty(residual.shape, dtype=residual.dtype, device=residual.device)
    _add_norm[(tokens,)](
        left,
        right,
        weight,
        total,
        normed,
        normed if scales is None else scales,
        width,
        left.stride(0),
        right.stride(0),
        normed.stride(0),
        epsilon,
        ADD=delta is not None,
        SCALES=scales is not None,
        BLOCK=triton.next_power_of_2(width),
        num_warps=WARPS,
    )
    return total


@triton.jit
def _add_norm_backward(
    by_total,
    by_normed,
    total,
    weight,
    out,
    width,
    by_total_stride,
    by_normed_stride,
    total_stride,
    out_stride,
    epsilon,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    wide = tl.load(total + row * total_stride + column, mask=inside, other=0.0).to(tl.float32)
    outer = tl.load(by_normed + row * by_normed_stride + column, mask=inside, other=0.0).to(tl.float32)
    outer *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide) / width + epsilon)
    normed = wide * scale
    result = scale * (outer - normed * (tl.sum(normed * outer) / width))
    if ADD:
        result += tl.load(by_total + row * by_total_stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, result.to(out.dtype.element_ty), mask=inside)


def add_norm_backward(
    by_total: torch.Tensor | None,
    by_normed: torch.Tensor,
    total: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
    out: torch.Tensor,
) -> None:
    """See elementwise.add_norm_backward."""
    tokens, width = out.shape
    through, at = _rows(by_normed), _rows(total)
    beside = through if by_total is None else _rows(by_total)
    _add_norm_backward[(tokens,)](
        beside,
        through,
        at,
        weight,
        out,
        width,
        beside.stride(0),
        through.stride(0),
        at.stride(0),
        out.stride(0),
        epsilon,
        ADD=by_total is not None,
        BLOCK=triton.next_power_of_2(width),
        num_warps=WARPS,
    )


def _rows(x: torch.Tensor) -> torch.Tensor:
    """[tokens, width], each row without gaps."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()
