"""Every Triton kernel computes what its plain-torch twin computes: on a GPU, or in Triton's interpreter without one.

The interpreter is chosen when triton is first imported: run this file alone, or with TRITON_INTERPRET=1.
"""

import os
import sys

import pytest
import torch

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    if "triton" in sys.modules:
        pytest.skip("triton was imported before, and not as its interpreter", allow_module_level=True)
    os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton")

from functools import partial
from pathlib import Path

import bitsandbytes.functional as bnb

from steps.train.kernels import (
    attention,
    elementwise,
    triton_attention,
    triton_attention_backward,
    triton_kernels,
    triton_norms,
)
from steps.train.kernels.fuse import fuse
from tests.tiny_peft import PLANS, step, tiny_peft

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

    @pytest.mark.parametrize(
        ("lengths", "heads", "key_heads", "width"),
        [((100, 30, 170), 2, 1, 64), ((24, 200, 288), 4, 2, 64), ((1, 2, 127), 2, 2, 128), ((384,), 2, 2, 64)],
    )
    def test_attention(
        self, dtype: torch.dtype, lengths: tuple[int, ...], heads: int, key_heads: int, width: int
    ) -> None:
        if DEVICE == "cuda" and dtype == torch.float32:
            pytest.skip("the trainer computes in bfloat16; float32 products are rounded to tf32 there")
        tokens = sum(lengths)
        rows = [draw(tokens, number * width + 8, dtype=dtype, seed=number) for number in (heads, key_heads, key_heads)]
        q, k, v = (wide[:, :-8] for wide in rows)  # rows with a stride
        positions = torch.cat([torch.arange(length) for length in lengths]).to(DEVICE)
        angles = positions[:, None] * (1e4 ** (-torch.arange(0, width, 2, device=DEVICE) / width)).repeat(2)
        tables, slope = (angles.cos().to(dtype), angles.sin().to(dtype)), draw(tokens, heads * width, dtype=dtype)
        out, expected = (draw(tokens, heads * width + 8, dtype=dtype)[:, :-8] for _ in range(2))
        sums = triton_attention.forward((q, k, v, *tables, positions), width, out)
        wide = [x.float() for x in (q, k, v, *tables)]
        expected = expected.float()
        expected_sums = attention.forward((*wide, positions), width, expected)
        near = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
        if dtype == torch.bfloat16:
            near = partial(torch.testing.assert_close, rtol=2e-2, atol=4e-2)
        near(out.float(), expected)
        near(sums, expected_sums)
        saved = (q, k, v, *tables, positions, out, sums)
        sizes = [x.shape[1] for x in (q, k, v)]
        found, again, twins = (draw(tokens, sum(sizes) + 8, dtype=kind) for kind in (dtype, dtype, torch.float32))
        around = found[:, -8:].clone()
        for gradients in (found, again):
            beside = gradients[:, :-8].split_with_sizes(sizes, dim=1)
            triton_attention_backward.backward(slope, saved, width, 512, tuple(beside))
        attention.backward(
            slope.float(), (*wide, positions), width, 512, tuple(twins[:, :-8].split_with_sizes(sizes, dim=1))
        )
        assert torch.equal(found, again)
        assert torch.equal(found[:, -8:], around)
        near(found[:, :-8].float(), twins[:, :-8])

    @pytest.mark.parametrize("shape", [(64, 128), (33, 192)])
    def test_dequantise(self, dtype: torch.dtype, shape: tuple[int, int]) -> None:
        weight = draw(*shape, dtype=dtype)
        packed, state = bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        parameter = torch.nn.Parameter(packed, requires_grad=False)
        parameter.quant_state = state  # type: ignore[attr-defined]  # as bitsandbytes' Params4bit has it
        wide = draw(shape[0] + 3, shape[1] + 16, dtype=dtype, seed=1)  # rows with a stride, as in a margin
        around = wide.clone()
        out, expected = wide[: shape[0], : shape[1]], torch.empty_like(weight)
        triton_kernels.dequantise_nf4(packed, state, out)
        assert torch.equal(wide[shape[0] :], around[shape[0] :])
        assert torch.equal(wide[:, shape[1] :], around[:, shape[1] :])
        elementwise.dequantise(parameter, expected)
        torch.testing.assert_close(out, expected, rtol=1e-6 if dtype == torch.float32 else 8e-3, atol=0)
        moved = float((out != expected).float().mean())
        assert moved < 0.1, "a fused multiply-add may move a block's scale by a last digit"

    @pytest.mark.parametrize("width", [8, 1500])
    def test_swiglu(self, dtype: torch.dtype, width: int) -> None:
        gate_up, gradient = draw(5, 2 * width, dtype=dtype), draw(5, width, dtype=dtype, seed=1)
        product, expected = triton_kernels.swiglu(gate_up, margin=4), elementwise.swiglu(gate_up, margin=4)
        assert product.shape == expected.shape == (5, width + 4)
        torch.testing.assert_close(product[:, :width], expected[:, :width])
        by_both, again = triton_kernels.swiglu_backward(gradient, gate_up, margin=4)
        expected_by_both, expected_again = elementwise.swiglu_backward(gradient, gate_up, margin=4)
        assert by_both.shape == expected_by_both.shape == (5, 2 * width + 4)
        torch.testing.assert_close(by_both[:, : 2 * width], expected_by_both[:, : 2 * width])
        torch.testing.assert_close(again, expected_again)

    @pytest.mark.parametrize("width", [64, 100])
    def test_rms_norm(self, dtype: torch.dtype, width: int) -> None:
        x, weight = draw(7, width, dtype=dtype), draw(1, width, dtype=dtype, seed=1)[0]
        x = x.t().contiguous().t()  # not contiguous
        found, expected = torch.empty(7, width + 8).to(x)[:, :width], torch.empty(7, width).to(x)
        assert triton_norms.add_norm(x, None, weight, 1e-5, found) is x
        assert elementwise.add_norm(x, None, weight, 1e-5, expected) is x
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("width", [64, 100])
    def test_add_norm(self, dtype: torch.dtype, width: int) -> None:
        wide = draw(2, 3, width + 8, dtype=dtype)
        residual, delta = wide[..., :width], draw(2, 3, width, dtype=dtype, seed=1)  # rows with a stride
        weight = draw(width, dtype=dtype, seed=2)
        found, expected = torch.empty(6, width + 8).to(wide)[:, :width], torch.empty(6, width).to(wide)
        scales, expected_scales = (torch.empty(6, 1, device=DEVICE) for _ in range(2))
        total = triton_norms.add_norm(residual, delta, weight, 1e-5, found, scales)
        assert torch.equal(total, elementwise.add_norm(residual, delta, weight, 1e-5, expected, expected_scales))
        torch.testing.assert_close(scales, expected_scales)
        assert total.shape == residual.shape
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("through_the_sum", [False, True])
    @pytest.mark.parametrize("width", [64, 100])
    def test_add_norm_backward(self, dtype: torch.dtype, width: int, through_the_sum: bool) -> None:
        by_total = draw(2, 3, width + 8, dtype=dtype)[..., :width] if through_the_sum else None
        by_normed, total = draw(2, 3, width, dtype=dtype, seed=1), draw(2, 3, width, dtype=dtype, seed=2)
        weight = draw(width, dtype=dtype, seed=3)
        around = draw(6, width + 8, dtype=dtype, seed=4)
        found, expected = around.clone(), torch.empty(6, width).to(around)
        triton_norms.add_norm_backward(by_total, by_normed, total, weight, 1e-5, found[:, :width])
        elementwise.add_norm_backward(by_total, by_normed, total, weight, 1e-5, expected)
        torch.testing.assert_close(found[:, :width], expected)
        assert torch.equal(found[:, width:], around[:, width:])

    @pytest.mark.parametrize("words", [64, 20000])
    def test_cross_entropy(self, dtype: torch.dtype, words: int) -> None:
        memory = (draw(5, words + 8, dtype=torch.float32) * 3).to(dtype)
        memory[1, 7] = 60.0  # far above the others
        targets = torch.tensor([0, 7, -100, 3, words - 1], device=DEVICE)
        scale = torch.tensor(0.25, device=DEVICE)
        found, expected = memory.clone(), memory[:, :words].clone()
        losses = triton_kernels.cross_entropy(found[:, :words], targets, scale, -100)
        torch.testing.assert_close(losses, elementwise.cross_entropy(expected, targets, scale, -100))
        torch.testing.assert_close(found[:, :words], expected)
        assert torch.equal(found[:, words:], memory[:, words:])

    @pytest.mark.parametrize("seed", [0, 1, 16, 2**31 - 1])
    def test_dropout_keeps_the_same_elements(self, dtype: torch.dtype, seed: int) -> None:
        x, total = draw(9, 300, dtype=dtype), draw(9, 300, dtype=dtype, seed=1)
        torch.testing.assert_close(
            triton_kernels.dropout(x, 0.1, seed), elementwise.dropout(x, 0.1, seed), rtol=1e-2, atol=0
        )
        part = x[:, :200]  # rows with a stride
        torch.testing.assert_close(
            triton_kernels.dropout(part, 0.1, seed), elementwise.dropout(part, 0.1, seed), rtol=1e-2, atol=0
        )
        one, other = total.clone(), total.clone()
        triton_kernels.add_dropped(one, x, 0.1, seed)
        elementwise.add_dropped(other, x, 0.1, seed)
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("plan", "dropout"), [("norms", 0.0), ("mixed", 0.1), ("layers", 0.1)])
def test_a_model_through_triton_and_through_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str, dropout: float
) -> None:
    """All kernels at their places, with the strides that they meet there."""
    model = tiny_peft(tmp_path, lora_dropout=dropout)
    fuse(model, PLANS[plan])
    results = []
    for through_triton in (False, True):
        monkeypatch.setattr(elementwise, "triton_runs", lambda tensor, chosen=through_triton: chosen)
        torch.manual_seed(1)
        results.append(step(model))
    (logits, gradients), (triton_logits, triton_gradients) = results
    torch.testing.assert_close(triton_logits, logits, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(triton_gradients[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 16, 2**31 - 1])
def test_dropout_reads_its_seed_from_memory(seed: int) -> None:
    """A captured step changes it between replays."""
    x, seeds = draw(9, 300, dtype=torch.float32), torch.tensor([5, seed], dtype=torch.int32, device=DEVICE)
    assert torch.equal(triton_kernels.dropout(x, 0.1, seeds[1]), triton_kernels.dropout(x, 0.1, seed))
    one, other = torch.zeros_like(x), torch.zeros_like(x)
    triton_kernels.add_dropped(one, x, 0.1, seeds[1])
    triton_kernels.add_dropped(other, x, 0.1, seed)
    assert torch.equal(one, other)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("plan", ["norms", "mixed", "layers"])
def test_a_captured_step_learns_what_the_ordinary_one_learns(tmp_path: Path, plan: str) -> None:
    """Needs flash attention as well; loss and gradients over three micro-batches, with dropout."""
    pytest.importorskip("flash_attn")
    from steps.train.graph.capture import CapturedStep
    from tests.train.packed import packed
    from tests.train.test_graph import gradients

    found = []
    for on_graph in (False, True):
        model = tiny_peft(tmp_path, "bfloat16", 1, heads=1, attention="flash_attention_2", lora_dropout=0.1)
        size = {"tokens": 96, "block": 32, "sequences": 16}
        step = CapturedStep(model, fuse(model, PLANS[plan]), **size, autocast=torch.bfloat16, on_graph=on_graph)
        torch.manual_seed(3)
        batches = [{name: _on_gpu(value) for name, value in packed(seed=seed).items()} for seed in range(3)]
        losses = [step.run(batch, 50) for batch in batches]
        assert step.replayed == 3, step.error
        found.append((losses, gradients(model)))
    (losses, expected), (captured_losses, captured) = found
    for loss, other in zip(losses, captured_losses, strict=True):
        torch.testing.assert_close(other, loss)
    for name, gradient in expected.items():
        torch.testing.assert_close(captured[name], gradient, rtol=3e-2, atol=1e-3)


def _on_gpu(value: object) -> object:
    return value.cuda() if isinstance(value, torch.Tensor) else value
