"""Triton kernels; each has its plain-torch twin in elementwise.py, which the tests compare it with.

This module needs triton and is imported only where a GPU runs it.
"""
# Triton's language has no Python types:
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any

import torch
import triton
import triton.language as tl

from steps.train.kernels.memory import aligned_rows
from steps.train.kernels.seeds import DRAWS, Seed

QUANTISED_ROWS = 32
"""Quantisation blocks that one program dequantises."""
WIDE = 1024
"""Elements that one program of an elementwise kernel takes."""
LOGITS = 8192
"""Logits of a row that a program holds at a time."""


@triton.jit
def _dequantise_nf4(
    packed,
    absmax,
    absmax_code,
    absmax_of_absmax,
    offset,
    code,
    out,
    stride,
    blocks,
    blocks_of_row,
    BYTES: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < blocks
    quantised = tl.load(absmax + row, mask=inside, other=0).to(tl.int32)
    second = tl.load(absmax_of_absmax + row // 256, mask=inside, other=0.0)
    scale = (tl.load(absmax_code + quantised) * second + tl.load(offset))[:, None]
    at = row[:, None] * BYTES + tl.arange(0, BYTES)[None, :]
    pair = tl.load(packed + at, mask=inside[:, None], other=0).to(tl.int32)
    first = (tl.load(code + (pair >> 4)) * scale).to(out.dtype.element_ty)
    other = (tl.load(code + (pair & 15)) * scale).to(out.dtype.element_ty)
    start = (row // blocks_of_row) * stride + (row % blocks_of_row) * (2 * BYTES)
    to = start[:, None] + tl.arange(0, 2 * BYTES)[None, :]
    tl.store(out + to, tl.interleave(first, other), mask=inside[:, None])


def dequantise_nf4(packed: torch.Tensor, state: Any, out: torch.Tensor) -> None:
    """A doubly quantised NF4 weight in one launch instead of bitsandbytes' three."""
    blocks = state.absmax.numel()
    _dequantise_nf4[(triton.cdiv(blocks, QUANTISED_ROWS),)](
        packed,
        state.absmax,
        state.state2.code,
        state.state2.absmax,
        state.offset,
        state.code,
        out,
        out.stride(0),
        blocks,
        out.shape[1] // state.blocksize,
        BYTES=state.blocksize // 2,
        ROWS=QUANTISED_ROWS,
    )


@triton.jit
def _kept(position, seed, threshold):
    bits = position.to(tl.uint32) * 0x9E3779B1 + seed.to(tl.uint32)
    bits = (bits ^ (bits >> 16)) * 0x85EBCA6B
    bits = (bits ^ (bits >> 13)) * 0xC2B2AE35
    bits = bits ^ (bits >> 16)
    return (bits >> 8).to(tl.int32) >= threshold


@triton.jit(do_not_specialize=["seed", "threshold"])
def _dropout(x, out, width, stride, seed, threshold, scale, ADD: tl.constexpr, READ: tl.constexpr, BLOCK: tl.constexpr):
    start = tl.load(seed) if READ else seed
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    at = row * width + column
    value = tl.where(_kept(at, start, threshold), value * scale, 0.0)
    if ADD:
        value += tl.load(out + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def _run_dropout(x: torch.Tensor, out: torch.Tensor, probability: float, seed: Seed, add: bool) -> None:
    """Rows of ``x`` may have a stride; ``out`` is contiguous."""
    rows, width = x.shape
    threshold = round(probability * DRAWS)
    scale = 1 / (1 - probability)
    read = isinstance(seed, torch.Tensor)
    _dropout[(rows, triton.cdiv(width, WIDE))](
        x, out, width, x.stride(0), seed, threshold, scale, ADD=add, READ=read, BLOCK=WIDE
    )


def dropout(x: torch.Tensor, probability: float, seed: Seed) -> torch.Tensor:
    """See elementwise.dropout."""
    out = x.new_empty(x.shape)
    _run_dropout(x, out, probability, seed, add=False)
    return out


def add_dropped(total: torch.Tensor, gradient: torch.Tensor, probability: float, seed: Seed) -> None:
    """See elementwise.add_dropped."""
    _run_dropout(gradient, total, probability, seed, add=True)


@triton.jit
def _swiglu(gate_up, out, width, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    silu = (wide * tl.sigmoid(wide)).to(gate.dtype)
    tl.store(out + row * stride + column, silu * up, mask=inside)


def swiglu(gate_up: torch.Tensor, margin: int) -> torch.Tensor:
    """See elementwise.swiglu."""
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = aligned_rows(tokens, width + margin, gate_up)
    _swiglu[(tokens, triton.cdiv(width, WIDE))](gate_up, out, width, out.stride(0), BLOCK=WIDE)
    return out


@triton.jit
def _swiglu_backward(gradient, gate_up, by_gate_up, out, width, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0)
    slope = tl.load(gradient + row * width + column, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    sigmoid = tl.sigmoid(wide)
    silu = (wide * sigmoid).to(gate.dtype)
    by_gate = slope.to(tl.float32) * up.to(tl.float32) * sigmoid * (1 + wide * (1 - sigmoid))
    tl.store(by_gate_up + row * stride + column, by_gate.to(gate.dtype), mask=inside)
    tl.store(by_gate_up + row * stride + width + column, slope * silu, mask=inside)
    tl.store(out + row * width + column, silu * up, mask=inside)


def swiglu_backward(gradient: torch.Tensor, gate_up: torch.Tensor, margin: int) -> tuple[torch.Tensor, torch.Tensor]:
    """See elementwise.swiglu_backward."""
    tokens, width = gradient.shape
    by_gate_up, out = aligned_rows(tokens, 2 * width + margin, gate_up), torch.empty_like(gradient)
    _swiglu_backward[(tokens, triton.cdiv(width, WIDE))](
        gradient, gate_up, by_gate_up, out, width, by_gate_up.stride(0), BLOCK=WIDE
    )
    return by_gate_up, out


@triton.jit
def _cross_entropy(logits, targets, scale, losses, words, stride, ignored, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    known = target != ignored
    start = logits + row * stride
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    hit = tl.zeros((), tl.float32)
    for first in range(0, words, BLOCK):
        column = first + tl.arange(0, BLOCK)
        value = tl.load(start + column, mask=column < words, other=float("-inf")).to(tl.float32)
        larger = tl.maximum(largest, tl.max(value))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(value - larger))
        largest = larger
        hit += tl.sum(tl.where(column == target, value, 0.0))
    total = largest + tl.log(total)
    tl.store(losses + row, tl.where(known, total - hit, 0.0))
    factor = tl.where(known, tl.load(scale), 0.0)
    for first in range(0, words, BLOCK):
        column = first + tl.arange(0, BLOCK)
        value = tl.load(start + column, mask=column < words, other=float("-inf")).to(tl.float32)
        slope = (tl.exp(value - total) - tl.where(column == target, 1.0, 0.0)) * factor
        tl.store(start + column, slope.to(logits.dtype.element_ty), mask=column < words)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, scale: torch.Tensor, ignored: int) -> torch.Tensor:
    """See elementwise.cross_entropy."""
    tokens, words = logits.shape
    losses = torch.empty(tokens, dtype=torch.float32, device=logits.device)
    _cross_entropy[(tokens,)](
        logits, targets, scale, losses, words, logits.stride(0), ignored, BLOCK=LOGITS, num_warps=16
    )
    return losses
