"""Decoder layers with fused sums: what autograd sees of them, and that whatever is asked of a model still works."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from steps.train.kernels.fuse import fuse
from steps.train.kernels.memory import aligned_rows
from steps.train.kernels.recognise import is_norm_first
from tests.tiny_peft import PLAIN, PLANS, decoder, differ, first_layer, step, tiny_peft, tokens
from tests.train.called import Called

OURS = ("AddNormBackward", "SwigluMlpBackward", "ProjectionsBackward", "FrozenRmsNormBackward")


def consumers(hidden: torch.Tensor) -> Counter[tuple[Any, int]]:
    """How often each output of our functions is read, from the autograd graph of the decoder's output."""
    assert hidden.grad_fn is not None
    found: Counter[tuple[Any, int]] = Counter()
    stack, seen = [hidden.grad_fn], {hidden.grad_fn}
    while stack:
        for function, output in stack.pop().next_functions:
            if function is None:
                continue
            if function.name().startswith(OURS):
                found[function, output] += 1
            if function not in seen:
                seen.add(function)
                stack.append(function)
    return found


@pytest.mark.parametrize(
    ("plan", "sums"),
    [
        ("norms", 4),  # the last one's norm is the model's
        ("mixed", 1 + 1 + 2),  # the first layer's end is a plain sum, which the second one hands on and norms
        ("layers", 1 + 1 + 1 + 1),  # the last layer's end is a plain sum, and the model's norm its own function
    ],
)
def test_autograd_has_nothing_to_add(tmp_path: Path, plan: str, sums: int) -> None:
    """Each result is read once, so no gradient of the residual stream is the sum of two."""
    model = tiny_peft(tmp_path)
    assert fuse(model, PLANS[plan]).layers == 2
    found = consumers(decoder(model)(input_ids=tokens(), use_cache=False).last_hidden_state)
    assert set(found.values()) == {1}
    functions = {function for function, _ in found}
    norms = [each for each in functions if each.name().startswith(("AddNorm", "FrozenRmsNorm"))]
    assert len(norms) + 1 == sums  # the last one made the output, which nothing here reads
    assert len([each for each in functions if each.name().startswith("Swiglu")]) == 2


@pytest.mark.parametrize("plan", list(PLANS))
def test_no_wide_tensor_is_copied_beside_its_thin_products(tmp_path: Path, plan: str) -> None:
    model = tiny_peft(tmp_path)
    fuse(model, PLANS[plan])
    with Called() as called:
        step(model)
    plain_end = plan == "layers"  # its gradient comes from the model's norm, which does not know of a margin
    attention = 1  # transformers' own, which knows of none either; the first layer's input has no gradient
    assert len(called.joined()) == plain_end + attention, called.joined()


@pytest.mark.parametrize("plan", ["norms", "mixed"])
def test_hidden_states_are_those_of_the_plain_path(tmp_path: Path, plan: str) -> None:
    """A loss on all of them: each sum and norm is then read twice."""
    model = tiny_peft(tmp_path)
    results = []
    for fused in (False, True):
        if fused:
            fuse(model, PLANS[plan])
        model.zero_grad()
        states = decoder(model)(input_ids=tokens(), use_cache=False, output_hidden_states=True).hidden_states
        assert len(states) == 3
        sum(state.square().mean() for state in states).backward()
        gradient = first_layer(model).mlp.down_proj.lora_A["default"].weight.grad.clone()
        results.append((torch.stack(states).detach(), gradient))
    (states, gradient), (fused_states, fused_gradient) = results
    torch.testing.assert_close(fused_states, states, rtol=1e-4, atol=1e-5)
    assert differ(fused_gradient, gradient) < 1e-4


def test_generation_and_evaluation_take_the_plain_layer(tmp_path: Path) -> None:
    model = tiny_peft(tmp_path).eval()
    results = []
    for fused in (False, True):
        if fused:
            fuse(model, PLANS["mixed"])
            step(model.train())  # leaves nothing behind that an evaluation would take up
            model.eval()
        with torch.no_grad():
            logits = model(input_ids=tokens()).logits
        answer = model.generate(input_ids=tokens(), max_new_tokens=5, do_sample=False)  # type: ignore[no-untyped-call]  # PEFT has no types there
        results.append((logits, answer))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-5)
    assert torch.equal(results[1][1], results[0][1])


def test_a_cache_in_training_is_filled(tmp_path: Path) -> None:
    model = tiny_peft(tmp_path)
    fuse(model, PLAIN)
    output = model(input_ids=tokens())
    assert output.past_key_values.get_seq_length() == tokens().shape[1]
    torch.testing.assert_close(output.logits, model(input_ids=tokens(), use_cache=False).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plan", ["norms", "mixed"])
def test_attention_that_has_bounds_looks_for_none_in_the_positions(tmp_path: Path, plan: str) -> None:
    model = tiny_peft(tmp_path)
    fuse(model, PLANS[plan])
    attention = first_layer(model).self_attn
    seen: dict[str, Any] = {}
    plain = attention.forward

    def noted(**rest: Any) -> Any:
        seen.update(rest)
        return plain(**rest)

    attention.forward = noted
    ids = tokens()[:1]
    positions = torch.arange(ids.shape[1])[None]
    bounds = torch.tensor([0, ids.shape[1]], dtype=torch.int32)
    packed = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 24, "max_length_k": 24}
    decoder(model)(input_ids=ids, position_ids=positions, use_cache=False, **packed)
    assert seen.pop("position_ids") is None
    assert seen["cu_seq_lens_q"] is bounds
    decoder(model)(input_ids=ids, position_ids=positions, use_cache=False)
    assert torch.equal(seen["position_ids"], positions)


def test_a_layer_that_changes_its_input_is_not_taken_for_one_of_ours(tmp_path: Path) -> None:
    """The sum that a layer handed on is changed on the way to the next one."""
    model = tiny_peft(tmp_path)
    hook = first_layer(model).register_forward_hook(lambda module, arguments, output: output * 2)
    logits, gradients = step(model)
    fuse(model, PLAIN)
    fused_logits, fused_gradients = step(model)
    hook.remove()
    torch.testing.assert_close(fused_logits, logits, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        assert differ(fused_gradients[name], gradient) < 1e-4


def test_layers_of_another_order_are_recognised_as_such() -> None:
    from transformers.models.gemma2.configuration_gemma2 import Gemma2Config
    from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer
    from transformers.models.granite.configuration_granite import GraniteConfig
    from transformers.models.granite.modeling_granite import GraniteDecoderLayer
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer
    from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

    size: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    assert is_norm_first(LlamaDecoderLayer(LlamaConfig(**size), 0))
    assert is_norm_first(Qwen3DecoderLayer(Qwen3Config(**size), 0))
    assert not is_norm_first(Gemma2DecoderLayer(Gemma2Config(**size), 0))  # it norms what is added, too
    assert not is_norm_first(GraniteDecoderLayer(GraniteConfig(**size), 0))  # it scales what is added


def test_rows_begin_at_multiples_of_16_bytes() -> None:
    """Else a matrix product takes an old and slow kernel."""
    for width in (8, 12, 4096 + 3):
        memory = aligned_rows(5, width, torch.empty(0, dtype=torch.bfloat16))
        assert memory.shape == (5, width)
        assert memory.stride(0) * 2 % 16 == 0


def test_a_sum_of_two_types_has_the_wider_one(tmp_path: Path) -> None:
    """As where a projection that is not fused answers in autocast's type."""
    model = tiny_peft(tmp_path, "bfloat16", target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"])
    fuse(model, PLAIN)
    layer = first_layer(model)
    plain = layer.self_attn.forward
    layer.self_attn.forward = lambda **rest: (plain(**rest)[0].float(), None)
    seen = SimpleNamespace(dtype=None)
    layer.mlp.register_forward_hook(lambda module, arguments, output: setattr(seen, "dtype", arguments[0].dtype))
    decoder(model)(input_ids=tokens(), use_cache=False)
    assert seen.dtype == torch.float32
