"""Dropout of the fused path: masks made from seeds, the same in every pass over a layer."""

from pathlib import Path
from typing import cast

import pytest
import torch

from steps.train.kernels import elementwise
from steps.train.kernels.forwards import SharedInput
from steps.train.kernels.fuse import fuse
from steps.train.kernels.weights import Scratch
from tests.tiny_peft import PLANS, differ, first_layer, step, tiny_peft


def test_share_of_zeros_and_mean() -> None:
    x = torch.ones(400, 500)
    dropped = elementwise.dropout(x, 0.1, seed=7)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.004)  # 6 standard deviations
    assert set(dropped.flatten().tolist()) == {0.0, float(torch.tensor(1 / 0.9))}


def test_masks_of_neighbouring_seeds_and_places_are_independent() -> None:
    shape, device = torch.Size((1000, 200)), torch.device("cpu")
    one, other = (elementwise.kept(shape, 0.5, seed, device).float() - 0.5 for seed in (7, 8))
    for pair in ((one, other), (one[1:], one[:-1]), (one[:, 1:], one[:, :-1])):
        assert abs(float((pair[0] * pair[1]).mean())) * 4 < 0.014  # 6 standard deviations


def test_gradients_use_the_mask_of_the_forward_pass(tmp_path: Path) -> None:
    """Against autograd on the plain formula with the same masks."""
    layer = first_layer(tiny_peft(tmp_path, lora_dropout=0.3)).self_attn.q_proj
    shared = SharedInput([layer], Scratch(), "q", hold=False)
    x = torch.randn(20, 64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    torch.manual_seed(5)
    (output,) = shared._compute(x)
    output.square().sum().backward()  # type: ignore[no-untyped-call]  # torch has no types there
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    made = [cast(torch.Tensor, tensor.grad).clone() for tensor in (x, a, b)]
    for tensor in (x, a, b):
        tensor.grad = None
    torch.manual_seed(5)
    seed = int(torch.randint(1 << 31, (1,)))
    dropped = x * elementwise.kept(x.shape, 0.3, seed, x.device) / 0.7
    plain = x @ shared.weights.matrix().t() + layer.scaling["default"] * dropped @ a.t() @ b.t()
    torch.testing.assert_close(output, plain)
    plain.square().sum().backward()
    for gradient, tensor in zip(made, (x, a, b), strict=True):
        torch.testing.assert_close(gradient, tensor.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plan", ["nothing", "mixed", "layers"])
def test_a_seed_decides_all(tmp_path: Path, plan: str) -> None:
    model = tiny_peft(tmp_path, lora_dropout=0.1)
    fuse(model, PLANS[plan])
    torch.manual_seed(1)
    logits, gradients = step(model)
    torch.manual_seed(1)
    again, again_gradients = step(model)
    other, _ = step(model)
    assert torch.equal(logits, again)
    assert all(torch.equal(again_gradients[name], gradient) for name, gradient in gradients.items())
    assert not torch.equal(logits, other)


def test_the_mean_over_masks_is_the_result_without(tmp_path: Path) -> None:
    layer = first_layer(tiny_peft(tmp_path, lora_dropout=0.1)).mlp.down_proj
    shared = SharedInput([layer], Scratch(), "down", hold=False)
    x = torch.randn(4, 192, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    with torch.no_grad():
        mean = torch.stack([shared._compute(x)[0] for _ in range(400)]).mean(0)
        layer.eval()
        without = shared._compute(x)[0]
        base = x @ shared.weights.matrix().t()
    assert differ(mean - base, without - base) < 0.05
    assert differ(mean - base, without - base) > 0
