"""Compiles every Triton kernel for a GPU that need not be there, with the arguments of a Llama-2-7B.

    python -m tests.train.compile_kernels 90

The number is the compute capability, without its point. Prints a JSON object: kernel -> bytes of shared memory that a
program takes. Triton's interpreter, which runs the kernels on a CPU, does not see what the compiler forbids.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import bitsandbytes.functional as bnb
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from steps.train.kernels import triton_attention, triton_attention_backward, triton_kernels, triton_norms

TOKENS, HIDDEN, INNER, RANK, WIDTH = 1024, 4096, 11008, 64, 128
AMPERE = 80


def compile_all(capability: int) -> dict[str, int]:
    """Call each kernel's function, without a launch."""
    target = GPUTarget("cuda", capability, 32)
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0
        )
    )
    shared: dict[str, int] = {}
    run = JITFunction.run

    def compiled(self: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        kernel = run(self, *arguments, grid=grid, warmup=True, **named)
        name = self.fn.__name__
        shared[name] = max(shared.get(name, 0), kernel.metadata.shared)
        return kernel

    JITFunction.run = compiled
    _call(torch.bfloat16 if capability >= AMPERE else torch.float16)
    if capability >= AMPERE:  # as flash attention, in whose place they run
        _call_attention()
    return shared


def _call(dtype: torch.dtype) -> None:
    wide, both = torch.zeros(TOKENS, HIDDEN, dtype=dtype), torch.zeros(TOKENS, 2 * INNER, dtype=dtype)
    weight, room = torch.ones(HIDDEN, dtype=dtype), torch.zeros(TOKENS, HIDDEN + RANK, dtype=dtype)
    seed = torch.zeros(2, dtype=torch.int32)
    packed, state = bnb.quantize_4bit(torch.zeros(64, 64, dtype=dtype), compress_statistics=True, quant_type="nf4")
    triton_kernels.dequantise_nf4(packed, state, torch.zeros(64, 64 + RANK, dtype=dtype)[:, :64])
    triton_kernels.swiglu(both, RANK)
    triton_kernels.swiglu_backward(both[:, :INNER].contiguous(), both, 2 * RANK)
    for given in (3, seed[1]):
        triton_kernels.dropout(wide, 0.05, given)
        triton_kernels.add_dropped(room[:, :HIDDEN], wide, 0.05, given)
    words = torch.zeros(TOKENS, 32000, dtype=dtype)
    triton_kernels.cross_entropy(words, torch.zeros(TOKENS, dtype=torch.long), torch.ones(()), -100)
    for delta in (None, wide):
        triton_norms.add_norm(wide, delta, weight, 1e-5, room[:, :HIDDEN], torch.ones(TOKENS, 1))
        triton_norms.add_norm_backward(delta, wide, wide, weight, 1e-5, room[:, :HIDDEN])


def _call_attention() -> None:
    heads = torch.zeros(TOKENS, HIDDEN, dtype=torch.bfloat16)
    tables = torch.zeros(TOKENS, WIDTH, dtype=torch.bfloat16)
    inputs = (heads, heads, heads, tables, tables, torch.arange(TOKENS))
    sums = triton_attention.forward(inputs, WIDTH, heads)
    triton_attention_backward.backward(heads, (*inputs, heads, sums), WIDTH, TOKENS, (heads, heads, heads))


if __name__ == "__main__":
    print(json.dumps(compile_all(int(sys.argv[1]))))
