"""The parts that only move bytes: in Triton on a GPU that has it, else in plain torch; both compute the same."""

import importlib.util
from typing import Any

import torch

from steps.train.kernels.memory import aligned_rows
from steps.train.kernels.seeds import DRAWS, Seed

_FIBONACCI = -1640531535  # 0x9E3779B1, the odd number nearest to 2^32 / golden ratio
_MIX = (-2048144789, -1028477387)  # 0x85EBCA6B and 0xC2B2AE35, the finaliser of MurmurHash3
_TRITON = importlib.util.find_spec("triton") is not None


def triton_runs(tensor: torch.Tensor) -> bool:
    """Whether this tensor's device runs the Triton kernels."""
    return _TRITON and tensor.is_cuda


def dequantise(weight: Any, out: torch.Tensor) -> None:
    """Write a bitsandbytes 4-bit weight into ``out`` [outputs, inputs], in its type; rows may have a stride."""
    state = weight.quant_state
    whole = out.shape[1] % state.blocksize == 0  # no quantisation block runs on into the next row
    if triton_runs(out) and whole and state.nested and state.quant_type == "nf4" and state.state2.blocksize == 256:
        from steps.train.kernels import triton_kernels

        triton_kernels.dequantise_nf4(weight.data, state, out)
        return
    absmax = state.absmax
    if state.nested:
        second = state.state2
        absmax = torch.ops.bitsandbytes.dequantize_blockwise.default(
            absmax, second.absmax, second.code, second.blocksize, torch.float32
        )
        absmax = absmax + state.offset
    out.copy_(
        torch.ops.bitsandbytes.dequantize_4bit.default(
            weight.data, absmax, state.blocksize, state.quant_type, state.shape, out.dtype
        )
    )


def kept(shape: torch.Size, probability: float, seed: Seed, device: torch.device) -> torch.Tensor:
    """Which elements dropout keeps: a hash of seed and position, the same on every device."""
    bits = torch.arange(shape.numel(), dtype=torch.int32, device=device).mul_(_FIBONACCI).add_(seed)
    for shift, factor in ((16, _MIX[0]), (13, _MIX[1])):
        bits ^= (bits >> shift) & ((1 << (32 - shift)) - 1)  # a logical shift: int32 has a sign
        bits *= factor
    bits ^= (bits >> 16) & 0xFFFF
    return ((bits >> 8) & (DRAWS - 1)).ge_(round(probability * DRAWS)).bool().view(shape)


def dropout(x: torch.Tensor, probability: float, seed: Seed) -> torch.Tensor:
    """``x`` with elements set to 0 with the probability, the others scaled to keep the mean."""
    if triton_runs(x):
        from steps.train.kernels import triton_kernels

        return triton_kernels.dropout(x, probability, seed)
    return x * kept(x.shape, probability, seed, x.device) * (1 / (1 - probability))


def add_dropped(total: torch.Tensor, gradient: torch.Tensor, probability: float, seed: Seed) -> None:
    """Add the gradient of ``dropout`` to ``total`` in place."""
    if triton_runs(total):
        from steps.train.kernels import triton_kernels

        triton_kernels.add_dropped(total, gradient, probability, seed)
        return
    total += gradient * kept(gradient.shape, probability, seed, gradient.device) * (1 / (1 - probability))


def swiglu(gate_up: torch.Tensor, margin: int) -> torch.Tensor:
    """silu(gate) * up for gate and up side by side: [tokens, 2 * width] -> [tokens, width + margin], margin unset."""
    if triton_runs(gate_up):
        from steps.train.kernels import triton_kernels

        return triton_kernels.swiglu(gate_up, margin)
    gate, up = gate_up.chunk(2, dim=1)
    result = aligned_rows(gate.shape[0], gate.shape[1] + margin, gate)
    torch.mul(torch.nn.functional.silu(gate), up, out=result[:, : gate.shape[1]])
    return result


def swiglu_backward(gradient: torch.Tensor, gate_up: torch.Tensor, margin: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient of gate and up side by side with an unset margin, and silu(gate) * up made again in the same pass."""
    if triton_runs(gate_up):
        from steps.train.kernels import triton_kernels

        return triton_kernels.swiglu_backward(gradient, gate_up, margin)
    gate, up = gate_up.chunk(2, dim=1)
    sigmoid = torch.sigmoid(gate.float())
    silu = (gate * sigmoid).to(gate.dtype)
    by_gate = gradient.float() * up * sigmoid * (1 + gate * (1 - sigmoid))
    both = aligned_rows(gate.shape[0], gate_up.shape[1] + margin, gate)
    torch.cat([by_gate.to(gate.dtype), gradient * silu], dim=1, out=both[:, : gate_up.shape[1]])
    return both, silu * up


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, scale: torch.Tensor, ignored: int) -> torch.Tensor:
    """Cross entropy of each row in nats, float32; turns ``logits`` [tokens, words] into ``scale`` x their gradient.

    Rows whose target is ``ignored`` have neither loss nor gradient. ``scale`` is one float32 on the device.
    """
    if triton_runs(logits):
        from steps.train.kernels import triton_kernels

        return triton_kernels.cross_entropy(logits, targets, scale, ignored)
    wide, known = logits.float(), targets != ignored
    at = targets.masked_fill(~known, 0)[:, None]
    total = wide.logsumexp(dim=1, keepdim=True)
    losses = (total - wide.gather(1, at))[:, 0] * known
    gradient = torch.exp(wide - total).scatter_add_(1, at, torch.full_like(total, -1.0))
    logits.copy_(gradient * (scale * known)[:, None])
    return losses


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """Root mean square norm over the last dimension, as Llama does it: in float32, rounded before the weight.

    ``out``: rows that may have a stride, [tokens, width].
    """
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
    add_norm(x, None, weight, epsilon, out.view(-1, x.shape[-1]))
    return out


def add_norm(
    residual: torch.Tensor,
    delta: torch.Tensor | None,
    weight: torch.Tensor,
    epsilon: float,
    normed: torch.Tensor,
    scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """The sum, rounded to its type, of which the norm is written into ``normed`` [tokens, width], rows with a stride.

    Without ``delta`` the sum is ``residual`` itself. ``scales`` [tokens, 1], float32, takes what the rows were
    multiplied by.
    """
    if triton_runs(residual):
        from steps.train.kernels import triton_norms

        return triton_norms.add_norm(residual, delta, weight, epsilon, normed, scales)
    total = residual if delta is None else residual + delta
    wide = total.reshape(normed.shape).float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    torch.mul(weight, (wide * scale).to(total.dtype), out=normed)
    if scales is not None:
        scales.copy_(scale)
    return total


def add_norm_backward(
    by_total: torch.Tensor | None,
    by_normed: torch.Tensor,
    total: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
    out: torch.Tensor,
) -> None:
    """Gradient of either part of the sum, through the sum and through its norm, into ``out`` [tokens, width].

    All may have rows with a stride; the weight is frozen.
    """
    if triton_runs(total):
        from steps.train.kernels import triton_norms

        triton_norms.add_norm_backward(by_total, by_normed, total, weight, epsilon, out)
        return
    wide = total.reshape(out.shape).float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    normed, outer = wide * scale, by_normed.reshape(out.shape).float() * weight
    result = scale * (outer - normed * (normed * outer).mean(-1, keepdim=True))
    out.copy_(result if by_total is None else by_total.reshape(out.shape).float() + result)
