"""Attention over packed sequences with the rotary embedding inside equals transformers' own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from steps.train.kernels import attention
from steps.train.kernels.attention import AttentionSite, PackedAttention, install_attention
from steps.train.kernels.fuse import fuse
from steps.train.kernels.recognise import is_llama_attention
from tests.tiny_peft import PLANS, decoder, differ, tiny_peft
from tests.train.called import Called

Ours = Callable[[PeftModel, str], tuple[list[Any], Called]]

LENGTHS = (5, 1, 9, 2)
RANK = 8
KINDS = {
    "llama": True,
    "mistral": True,
    "qwen2": True,  # biases belong to its projections
    "qwen3": False,  # norms of the heads
    "gemma2": False,  # caps its scores
    "cohere": False,  # rotates neighbours, not halves
    "phi3": False,
    "gpt2": False,
    "gpt_neox": False,
}


def tiny(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config: Any = AutoConfig.for_model(kind)
    values: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    values |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "pad_token_id": 0, "sliding_window": None}
    for name, value in {**values, **more}.items():
        if hasattr(config, name):
            setattr(config, name, value)
    if hasattr(config, "layer_types"):
        config.layer_types = ["full_attention"]
    config._attn_implementation = "eager"
    return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # transformers has no types there


def attentions(model: Any) -> list[torch.nn.Module]:
    """One a layer: a module whose name says so and that is in no other such module."""
    return [module for name, module in model.named_modules() if name.endswith(("self_attn", ".attn", ".attention"))]


def without_mask(model: Any, **given: Any) -> torch.Tensor:
    """Logits of the packed rows as flash attention's models are called: no mask, bounds from the positions."""
    model.config._attn_implementation = "no mask is made for an unknown name"
    logits: torch.Tensor = model.lm_head(model.model(**packed(), use_cache=False, **given).last_hidden_state)
    return logits


def packed() -> dict[str, torch.Tensor]:
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    ids = torch.randint(64, positions.shape, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "position_ids": positions}


@pytest.mark.parametrize("kind", KINDS)
def test_which_attention_is_llamas(kind: str) -> None:
    found = [is_llama_attention(module) for module in attentions(tiny(kind))]
    assert found == [KINDS[kind]]


def test_a_window_is_not_taken() -> None:
    assert not any(is_llama_attention(module) for module in attentions(tiny("mistral", sliding_window=4)))


def test_same_logits_and_gradients_as_transformers() -> None:
    plain, ours = tiny("llama"), tiny("llama")
    for module in attentions(ours):
        install_attention(module, AttentionSite())
    batch = packed()
    expected = plain(**batch, use_cache=False).logits
    logits = without_mask(ours, max_length_q=9)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    for loss in (expected, logits):
        loss.square().sum().backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6, msg=name)


def passes(model: PeftModel, **bounds: Any) -> tuple[list[Any], Called]:
    """Hidden states and the adapter's gradients of packed rows, and what torch was asked for."""
    positions = packed()["position_ids"]
    ids = torch.randint(400, positions.shape, generator=torch.Generator().manual_seed(1))
    with Called() as called:
        hidden = decoder(model)(input_ids=ids, position_ids=positions, use_cache=False, **bounds).last_hidden_state
        hidden.square().sum().backward()
    return [hidden, *(weight.grad for name, weight in model.named_parameters() if "lora" in name)], called


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Ours:
    """``passes`` of the fused model, as the captured trainer calls the decoder: with the sequences' bounds."""
    calls: list[int] = []
    original = attention.forward

    def counted(*args: Any) -> Any:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr("steps.train.kernels.fuse.takes", is_llama_attention)
    monkeypatch.setattr(attention, "forward", counted)
    ends = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)

    def run(model: PeftModel, plan: str) -> tuple[list[Any], Called]:
        assert fuse(model, PLANS[plan]).attentions == 2
        decoder(model).config._attn_implementation = "no mask is made for an unknown name"
        result = passes(model, cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=9, max_length_k=9)
        assert len(calls) >= 2
        return result

    return run


@pytest.mark.parametrize("plan", PLANS)
def test_the_fused_model_calls_it_in_every_layer(plan: str, tmp_path: Path, ours: Ours) -> None:
    expected, _ = passes(tiny_peft(tmp_path / "plain", r=RANK))
    found, called = ours(tiny_peft(tmp_path / "fused", r=RANK), plan)
    for one, other in zip(found, expected, strict=True):
        assert differ(one, other) < 1e-3
    # no gradient of an index, which is copied into zeros; no product added to another; nothing copied side by side
    assert not called.arguments(torch.ops.aten.select_backward.default)
    assert not [each for each in called.arguments(torch.ops.aten.addmm_.default) if each[0].shape[1] > RANK]
    assert len(called.joined()) == (plan == "layers")  # its end is a plain sum


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("k_proj", "o_proj"), ("down_proj",)], ids="+".join)
def test_some_of_its_projections_have_an_adapter(targets: tuple[str, ...], tmp_path: Path, ours: Ours) -> None:
    """Its gradients then lie beside room that nobody takes."""
    expected, _ = passes(tiny_peft(tmp_path / "plain", target_modules=list(targets)))
    found, _ = ours(tiny_peft(tmp_path / "fused", target_modules=list(targets)), "norms")
    for one, other in zip(found, expected, strict=True):
        assert differ(one, other) < 1e-3


def test_a_mask_a_cache_or_a_long_sequence_goes_the_former_way(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, ours = tiny("llama"), tiny("llama")
    for module in attentions(ours):
        install_attention(module, AttentionSite())

    def fail(*args: Any) -> None:
        raise AssertionError("the kernels were called")

    monkeypatch.setattr(PackedAttention, "apply", fail)
    batch = packed()
    for given in ({"use_cache": False}, {"use_cache": True, "max_length_q": 9}):
        torch.testing.assert_close(ours(**batch, **given).logits, plain(**batch, **given).logits)
    with pytest.raises(AssertionError, match="kernels were called"):
        without_mask(ours, max_length_q=9)
