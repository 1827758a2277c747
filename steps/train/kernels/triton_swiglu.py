"""SwiGLU's backward pass in Triton, with the gradients of the LoRA weights that read the same tiles.

This module needs triton and is imported only where a GPU runs it.
"""
# Triton's language has no Python types:
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl

from steps.train.kernels import elementwise

COLUMNS = 64
"""Of the inner width, that one program owns: 128 bytes of a row, and three sums that fit into registers."""
TOKENS = 64
"""That a program takes at a time."""
SEGMENTS = 3
"""Parts of the tokens, each with its own programs and sums."""
WARPS = 8
STAGES = 2
"""Tiles that are on their way at a time: more would leave no room for a second program."""


@triton.jit
def _swiglu_backward_sums(
    gradient,
    gate_up,
    thin,
    by_thin_down,
    by_gate_up,
    sums,
    tokens,
    segment,
    width,
    thin_stride,
    by_thin_down_stride,
    by_stride,
    gate_scale,
    up_scale,
    RANK: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    rank = tl.arange(0, RANK)
    inside = column < width
    begin = tl.program_id(1) * segment
    end = tl.minimum(begin + segment, tokens)
    by_gate_b = tl.zeros((COLUMNS, RANK), tl.float32)
    by_up_b = tl.zeros((COLUMNS, RANK), tl.float32)
    by_down_a = tl.zeros((RANK, COLUMNS), tl.float32)
    for first in range(begin, end, TOKENS):
        token = first + tl.arange(0, TOKENS)
        known = (token < end)[:, None]
        row = token.to(tl.int64)[:, None]
        mask = known & inside[None, :]
        at = gate_up + row * 2 * width + column[None, :]
        gate = tl.load(at, mask=mask, other=0.0)
        up = tl.load(at + width, mask=mask, other=0.0)
        slope = tl.load(gradient + row * width + column[None, :], mask=mask, other=0.0)
        wide = gate.to(tl.float32)
        sigmoid = tl.sigmoid(wide)
        silu = (wide * sigmoid).to(gate.dtype)
        by_gate = slope.to(tl.float32) * up.to(tl.float32) * sigmoid * (1 + wide * (1 - sigmoid))
        by_gate = by_gate.to(gate.dtype)
        by_up = (slope * silu).to(gate.dtype)
        product = (silu * up).to(gate.dtype)
        to = by_gate_up + row * by_stride + column[None, :]
        tl.store(to, by_gate, mask=mask)
        tl.store(to + width, by_up, mask=mask)
        side = thin + row * thin_stride + rank[None, :]
        thin_gate = tl.load(side, mask=known, other=0.0)
        thin_up = tl.load(side + RANK, mask=known, other=0.0)
        thin_down = tl.load(by_thin_down + row * by_thin_down_stride + rank[None, :], mask=known, other=0.0)
        by_gate_b = tl.dot(tl.trans(by_gate), thin_gate, by_gate_b, input_precision=PRECISION)
        by_up_b = tl.dot(tl.trans(by_up), thin_up, by_up_b, input_precision=PRECISION)
        by_down_a = tl.dot(tl.trans(thin_down), product, by_down_a, input_precision=PRECISION)
    start = sums + tl.program_id(1).to(tl.int64) * 3 * width * RANK
    upright = start + column[:, None] * RANK + rank[None, :]
    tl.store(upright, by_gate_b * gate_scale, mask=inside[:, None])
    tl.store(upright + width * RANK, by_up_b * up_scale, mask=inside[:, None])
    tl.store(start + 2 * width * RANK + rank[:, None] * width + column[None, :], by_down_a, mask=inside[None, :])


def swiglu_backward_sums(
    gradient: torch.Tensor,
    gate_up: torch.Tensor,
    thin: torch.Tensor,
    by_thin_down: torch.Tensor,
    scales: tuple[float, ...],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """See elementwise.swiglu_backward_sums."""
    tokens, width = gradient.shape
    rank = by_thin_down.shape[1]
    by_gate_up = elementwise.rows(tokens, 2 * width + 2 * rank, gate_up)
    sums = torch.empty((SEGMENTS, 3, width * rank), dtype=torch.float32, device=gradient.device)
    segment = triton.cdiv(triton.cdiv(tokens, SEGMENTS), TOKENS) * TOKENS
    _swiglu_backward_sums[(triton.cdiv(width, COLUMNS), SEGMENTS)](
        gradient,
        gate_up,
        thin,
        by_thin_down,
        by_gate_up,
        sums,
        tokens,
        segment,
        width,
        thin.stride(0),
        by_thin_down.stride(0),
        by_gate_up.stride(0),
        scales[0],
        scales[1],
        RANK=rank,
        TOKENS=TOKENS,
        COLUMNS=COLUMNS,
        PRECISION="ieee" if gradient.dtype == torch.float32 else "tf32",
        num_warps=WARPS,
        num_stages=STAGES,
    )
    by_gate_b, by_up_b, by_down_a = sums.sum(0).to(gradient.dtype)
    return by_gate_up, by_gate_b.view(width, rank), by_up_b.view(width, rank), by_down_a.view(rank, width)
