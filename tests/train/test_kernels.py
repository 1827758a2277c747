"""The fused path computes what PEFT's own path computes: outputs, gradients, losses, saved files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig

from steps.train.kernels.forwards import SharedInput
from steps.train.kernels.fuse import Fusion, fuse
from steps.train.kernels.recognise import is_llama_norm, is_swiglu
from steps.train.kernels.weights import Scratch
from steps.train.plan.plan import Plan
from tests.tiny_peft import PLAIN, PLANS, differ, first_layer, step, tiny_peft, tokens

TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}
"""Allowed difference, as a share of the norm: a few roundings of the type."""


def compare(model: PeftModel, precision: str, plan: Plan = PLAIN) -> Fusion:
    """Fuse the model and hold its step against what it did before."""
    logits, gradients = step(model)
    fusion = fuse(model, plan)
    fused_logits, fused_gradients = step(model)
    assert differ(fused_logits, logits) < TOLERANCE[precision]
    assert fused_gradients.keys() == gradients.keys()
    assert len(gradients) == sum(weight.requires_grad for weight in model.parameters())
    off = {name: differ(fused_gradients[name], gradients[name]) for name in gradients}
    assert max(off.values()) < TOLERANCE[precision] * 3, max(off.items(), key=lambda item: item[1])
    return fusion


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("key_value_heads", [4, 1])
@pytest.mark.parametrize("plan", list(PLANS))
def test_outputs_and_gradients_are_pefts(tmp_path: Path, precision: str, key_value_heads: int, plan: str) -> None:
    model = tiny_peft(tmp_path, precision, key_value_heads)
    fusion = compare(model, precision, PLANS[plan])
    assert (fusion.projections, fusion.mlps, fusion.norms, fusion.left) == (14, 2, 5, {})


@pytest.mark.parametrize(
    ("plan", "precision", "dropout"),
    [
        *((PLANS[name], "float32", dropout) for name in ("norms", "mlp", "mixed", "layers") for dropout in (0.0, 0.1)),
        *((Plan(1, 1, recompute="nothing", held_layers=held), kind, 0.0) for held in (1, 2) for kind in TOLERANCE),
    ],
    ids=str,
)
def test_no_plan_changes_a_number(tmp_path: Path, plan: Plan, precision: str, dropout: float) -> None:
    """Recomputed layers draw the same masks; dequantised once or in each pass, a product sees the same matrix."""
    results = []
    for chosen in (PLAIN, plan):
        model = tiny_peft(tmp_path, precision, lora_dropout=dropout)
        fuse(model, chosen)
        torch.manual_seed(1)
        results.append(step(model))
    (logits, gradients), (other_logits, other_gradients) = results
    assert torch.equal(other_logits, logits)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-5, atol=1e-7)


def test_adapter_in_float32_on_a_bfloat16_model_under_autocast(tmp_path: Path) -> None:
    model = tiny_peft(tmp_path, "bfloat16")
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    with torch.autocast(model.device.type, torch.bfloat16):
        compare(model, "bfloat16")
    types = {weight.grad.dtype for weight in model.parameters() if weight.grad is not None}
    assert types == {torch.float32}


def test_rank_and_scale_of_each_layer_count(tmp_path: Path) -> None:
    model = tiny_peft(
        tmp_path, use_rslora=True, rank_pattern={"k_proj": 4, "up_proj": 2}, alpha_pattern={"q_proj": 3, "down_proj": 5}
    )
    fusion = compare(model, "float32")
    assert (fusion.projections, fusion.mlps, fusion.left) == (14, 2, {})


def test_some_targets_only(tmp_path: Path) -> None:
    model = tiny_peft(tmp_path, target_modules=["q_proj", "v_proj", "down_proj"])
    fusion = compare(model, "float32", PLANS["norms"])
    assert (fusion.projections, fusion.mlps) == (6, 0)


def test_without_the_adapter_the_base_answers(tmp_path: Path) -> None:
    model = tiny_peft(tmp_path).eval()
    ids = tokens()
    with torch.no_grad(), model.disable_adapter():
        base = model(input_ids=ids).logits
    fuse(model, PLAIN)
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        with model.disable_adapter():
            torch.testing.assert_close(model(input_ids=ids).logits, base, rtol=1e-4, atol=1e-5)
    assert differ(adapted, base) > 0.01


def test_another_input_is_computed_for_itself(tmp_path: Path) -> None:
    attention = first_layer(tiny_peft(tmp_path)).self_attn
    one, other = torch.randn(3, 64), torch.randn(3, 64)
    expected = [attention.q_proj(one), attention.k_proj(other), attention.v_proj(one), attention.k_proj(one)]
    SharedInput([attention.q_proj, attention.k_proj, attention.v_proj], Scratch(), "qkv", hold=False).install()
    given = [attention.q_proj(one), attention.k_proj(other), attention.v_proj(one), attention.k_proj(one)]
    for result, wanted in zip(given, expected, strict=True):
        torch.testing.assert_close(result, wanted)
    first = attention.q_proj(one)
    with torch.no_grad():
        one.add_(1)
    assert not torch.allclose(attention.q_proj(one), first)
    changed = attention.k_proj(one)
    with torch.no_grad():
        one.sub_(1)
    assert not torch.allclose(changed, attention.k_proj(one))


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"use_dora": True}, "a variant of LoRA"), ({"lora_bias": True}, "the adapter has a bias")],
)
def test_what_is_not_plain_lora_stays_pefts(tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    model = tiny_peft(tmp_path, **settings)
    before, _ = step(model)
    fusion = fuse(model, PLAIN)
    after, _ = step(model)
    assert (fusion.projections, fusion.norms, len(fusion.left)) == (0, 0, 14)
    assert f"14 left to PEFT: {why}" in str(fusion)
    assert torch.equal(before, after)


def test_other_mlps_and_norms_are_recognised_as_such(tmp_path: Path) -> None:
    from transformers.models.gemma.configuration_gemma import GemmaConfig
    from transformers.models.gemma.modeling_gemma import GemmaMLP, GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

    config = GemmaConfig(hidden_size=8, intermediate_size=16)
    gelu = GemmaMLP(config)  # type: ignore[no-untyped-call]  # transformers has no types there
    silu = LlamaMLP(LlamaConfig(hidden_size=64, intermediate_size=16))  # type: ignore[no-untyped-call]  # transformers has no types there
    assert not is_swiglu(gelu)
    assert not is_llama_norm(GemmaRMSNorm(8))  # it multiplies by 1 + weight
    assert not is_swiglu(torch.nn.Linear(8, 8))
    assert is_swiglu(silu)
    norm = LlamaRMSNorm(8)
    assert not is_llama_norm(norm)  # its weight is trained
    assert is_llama_norm(norm.requires_grad_(False))
