"""Every Triton kernel computes what its plain-torch twin computes; on a GPU, or in Triton's interpreter without one."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

pytest.importorskip("triton")

import bitsandbytes.functional as bnb

from steps.train.kernels import elementwise, triton_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TYPES = [torch.bfloat16, torch.float32] if DEVICE == "cuda" else [torch.float32]  # the interpreter's numpy has no bf16


def draw(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps elementwise on plain torch."""
    monkeypatch.setattr(elementwise, "triton_runs", lambda tensor: False)


@pytest.mark.usefixtures("twin")
@pytest.mark.parametrize("dtype", TYPES)
class TestTwins:
    """Same inputs, both ways."""

    @pytest.mark.parametrize("shape", [(64, 128), (33, 192)])
    def test_dequantise(self, dtype: torch.dtype, shape: tuple[int, int]) -> None:
        weight = draw(*shape, dtype=dtype)
        packed, state = bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        parameter = torch.nn.Parameter(packed, requires_grad=False)
        parameter.quant_state = state  # type: ignore[attr-defined]  # as bitsandbytes' Params4bit has it
        out, expected = torch.full_like(weight, torch.nan), torch.empty_like(weight)
        triton_kernels.dequantise_nf4(packed, state, out)
        elementwise.dequantise(parameter, expected)
        torch.testing.assert_close(out, expected, rtol=1e-6 if dtype == torch.float32 else 8e-3, atol=0)
        assert float((out != expected).float().mean()) < 0.02

    @pytest.mark.parametrize("width", [8, 1500])
    def test_swiglu(self, dtype: torch.dtype, width: int) -> None:
        gate_up, gradient = draw(5, 2 * width, dtype=dtype), draw(5, width, dtype=dtype, seed=1)
        torch.testing.assert_close(triton_kernels.swiglu(gate_up), elementwise.swiglu(gate_up))
        for one, other in zip(
            triton_kernels.swiglu_backward(gradient, gate_up),
            elementwise.swiglu_backward(gradient, gate_up),
            strict=True,
        ):
            torch.testing.assert_close(one, other)

    @pytest.mark.parametrize("width", [64, 100])
    def test_rms_norm(self, dtype: torch.dtype, width: int) -> None:
        x, weight, gradient = (draw(n, width, dtype=dtype, seed=n) for n in (7, 1, 7))
        weight = weight[0]
        torch.testing.assert_close(triton_kernels.rms_norm(x, weight, 1e-5), elementwise.rms_norm(x, weight, 1e-5))
        torch.testing.assert_close(
            triton_kernels.rms_norm_backward(gradient, x, weight, 1e-5),
            elementwise.rms_norm_backward(gradient, x, weight, 1e-5),
        )

    @pytest.mark.parametrize("seed", [0, 1, 16, 2**31 - 1])
    def test_dropout_keeps_the_same_elements(self, dtype: torch.dtype, seed: int) -> None:
        x, total = draw(9, 300, dtype=dtype), draw(9, 300, dtype=dtype, seed=1)
        torch.testing.assert_close(
            triton_kernels.dropout(x, 0.1, seed), elementwise.dropout(x, 0.1, seed), rtol=1e-2, atol=0
        )
        one, other = total.clone(), total.clone()
        triton_kernels.add_dropped(one, x, 0.1, seed)
        elementwise.add_dropped(other, x, 0.1, seed)
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)
