"""Every Triton kernel compiles for the GPUs that the planner knows, and fits their memory; without a GPU."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path("steps/train/kernels")
SHARED = {75: 64, 80: 163, 89: 99, 90: 227}
"""Compute capability -> KiB of shared memory that a block may have (CUDA C++ Programming Guide, table of technical
specifications by compute capability); of 8.6 as of 8.9."""
ATTENTION = {"_forward", "_backward_queries", "_backward_keys"}  # where flash attention runs: from 8.0 on


def kernels() -> set[str]:
    """Names of all kernels that are launched, as ``kernel[grid](...)``; the other ones are called by these."""
    found = set()
    for path in KERNELS.glob("triton_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        launched = {
            node.value.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
        }
        found |= {
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.decorator_list and node.name in launched
        }
    return found


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("capability", SHARED)
def test_every_kernel_compiles_and_fits(capability: int, tmp_path: Path) -> None:
    """In a process of its own: where there is no GPU, this one may have triton's interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.train.compile_kernels", str(capability)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shared = json.loads(done.stdout.splitlines()[-1])
    assert shared.keys() == kernels() - (ATTENTION if capability < 80 else set())
    assert max(shared.values()) <= SHARED[capability] * 1024
