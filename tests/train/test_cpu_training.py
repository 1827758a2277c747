"""What is faster on a processor computes the same as what it replaces."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from steps.train.cpu import attention, head
from steps.train.plan.params import PlanParameters
from tests.tiny_run import TinyRun
from tests.train.invariance import distance, learn


def random_heads(tokens: int, batch: int = 1) -> list[torch.Tensor]:
    """Four query heads that share two of keys and values."""
    torch.manual_seed(tokens)
    return [torch.randn(batch, heads, tokens, 8, requires_grad=True) for heads in (4, 2, 2)]


def attended(heads: list[torch.Tensor], lengths: list[int], mask: torch.Tensor | None = None) -> torch.Tensor:
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    module: Any = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    query, key, value = heads
    return attention.packed_attention(module, query, key, value, mask, positions, scaling=0.3)[0]


def masked(heads: list[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    query, key, value = heads
    result = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    return result.transpose(1, 2)


@pytest.mark.parametrize("lengths", [[7], [3, 1, 9], [attention.LONGEST_BY_PRODUCTS + 1, 5]])
def test_attention_one_sequence_at_a_time_is_attention_under_a_block_mask(lengths: list[int]) -> None:
    numbers = torch.repeat_interleave(torch.tensor(lengths))
    mask = (numbers[:, None] == numbers).tril()
    heads = random_heads(len(numbers))
    result = attended(heads, lengths)
    expected = masked(heads, mask)
    torch.testing.assert_close(result, expected)
    weight = torch.randn_like(result)
    for one, other in zip(
        torch.autograd.grad((result * weight).sum(), heads),
        torch.autograd.grad((expected * weight).sum(), heads),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_sequence_sees_no_bit_of_its_neighbour() -> None:
    heads = random_heads(20)
    before = attended(heads, [8, 12])
    for one in heads:
        one.data[:, :, :8] = 5.0
    assert torch.equal(attended(heads, [8, 12])[:, 8:], before[:, 8:])


def test_padded_examples_keep_their_mask() -> None:
    heads = random_heads(6, batch=2)
    mask = torch.ones(6, 6, dtype=torch.bool).tril().repeat(2, 1, 1, 1)
    mask[1, :, :, :2] = False
    mask[1, :, :2, :2] = torch.eye(2, dtype=torch.bool)
    torch.testing.assert_close(attended(heads, [6], mask), masked(heads, mask))


@pytest.mark.parametrize("count", [0, 3, head.ROWS, 2 * head.ROWS + 5])
def test_scores_of_tokens_are_those_of_a_whole_log_softmax(count: int) -> None:
    torch.manual_seed(count)
    hidden, weight = torch.randn(count, 16, requires_grad=True), torch.randn(50, 16)
    targets = torch.randint(50, (count,))
    scores, entropy, first = head.TokenScores.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]  # torch has no types there
    logits = hidden @ weight.t()
    expected = logits.log_softmax(-1)
    torch.testing.assert_close(scores, expected.gather(1, targets[:, None])[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, -(expected.exp() * expected).sum(1), rtol=1e-5, atol=1e-5)
    assert torch.equal(first, logits.argmax(1) == targets)
    weights = torch.rand(count)
    (gradient,) = torch.autograd.grad((scores * weights).sum(), hidden)
    (wanted,) = torch.autograd.grad((expected.gather(1, targets[:, None])[:, 0] * weights).sum(), hidden)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def tiny_llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).requires_grad_(requires_grad=False)


def test_output_layers_that_compute_something_else_stay() -> None:
    model = tiny_llama()
    assert head.obstacle(model) is None
    model.lm_head.weight.requires_grad_()
    assert head.obstacle(model) == "its output layer is trained"
    model = tiny_llama()
    model.config.logit_scale = 0.5
    assert head.obstacle(model) == "it has logit_scale"
    model = tiny_llama()
    model.lm_head = torch.nn.Linear(8, 8).requires_grad_(requires_grad=False)
    assert head.obstacle(model) == "its output layer has a bias"


def test_the_adapter_is_the_one_of_plain_trl(tiny_run: TinyRun, tmp_path: Path) -> None:
    faster, plain = (
        learn(tiny_run, tmp_path / "faster"),
        learn(tiny_run, tmp_path / "plain", plan=PlanParameters(kernels="plain")),
    )
    assert distance(faster, plain).loss > 0, "it is another path"
    assert distance(faster, plain).within(loss=1e-5, adapter=1e-4)
