"""Greedy decoding in batches: what a row gets does not depend on its neighbours, and is what ``generate`` gives."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from steps.device import describe_device
from steps.evaluate.decode import Decoding, decode, keeps_keys_and_values
from steps.evaluate.sampling import Draw, Sampling, sampled, sampling_of
from steps.quantize.load import load_quantized
from tests.tiny_run import TinyRun

PAD = 3
TIE = {"float32": 1e-5, "bfloat16": 2**-6}
"""Two tokens are tied where their logits differ by less than this share of the largest logit: in bfloat16 by four of
its steps (8 bits), in float32 by some hundred."""


def model_of(run: TinyRun, precision: str) -> PeftModel:
    model = load_quantized(run.model, describe_device(precision))
    return PeftModel.from_pretrained(model, str(run.adapter))


def mistral() -> PreTrainedModel:
    """Looks back 8 positions."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
    )
    return MistralForCausalLM(config)


def mamba() -> PreTrainedModel:
    """Keeps a state instead of keys and values."""
    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=4))


def prompts_of(count: int = 19) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(4, 400, (5 + 7 * index % 40,), generator=generator).tolist() for index in range(count)]


def answers(
    model: Any, prompts: Sequence[Sequence[int]], size: int, end: int, count: int = 24, draws: Sequence[Draw] = ()
) -> list[list[int]]:
    told: list[int] = []
    with torch.inference_mode():
        found = dict(decode(model, prompts, Decoding(end, PAD, count, size), told.append, sampling_of(prompts, draws)))
    assert sum(told) == sum(map(len, found.values()))
    return [found[index] for index in range(len(prompts))]


def by_generate(model: Any, prompt: Sequence[int], end: int, count: int = 24) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=PAD,
        )
    found: list[int] = output[0, len(prompt) :].tolist()
    return found


def often(found: list[list[int]]) -> int:
    """A token that ends many of these answers, each at another place."""
    counts = Counter(token for answer in found for token in set(answer[1:]))
    return next(token for token, count in counts.most_common() if count < len(found))


def tied(model: Any, prompt: Sequence[int], one: list[int], other: list[int], precision: str) -> bool:
    """Whether the answers are equal, or differ first where the two best tokens are tied."""
    place = next((place for place, both in enumerate(zip(one, other, strict=False)) if both[0] != both[1]), None)
    if place is None:
        return one == other
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *one[:place]]])).logits[0, -1].float()
    best = logits.topk(2).values
    return bool(best[0] - best[1] <= TIE[precision] * logits.abs().max())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [3, 16, 64])
def test_a_batch_changes_nothing_but_ties(tiny_run: TinyRun, precision: str, size: int) -> None:
    model, prompts = model_of(tiny_run, precision), prompts_of()
    end = often(answers(model, prompts, 1, end=2))
    alone, many = answers(model, prompts, 1, end), answers(model, prompts, size, end)
    assert len({len(answer) for answer in alone}) > 3, "rows end at different places"
    for prompt, one, other in zip(prompts, alone, many, strict=True):
        assert tied(model, prompt, one, other, precision)
        assert tied(model, prompt, by_generate(model, prompt, end), one, precision)


@pytest.mark.parametrize("make", [mistral, mamba])
def test_other_architectures(make: Any) -> None:
    """A window of attention; and a state in place of a cache, which is left to ``generate``."""
    model, prompts = make(), prompts_of(9)
    assert keeps_keys_and_values(model) == (make is mistral)
    end = often(answers(model, prompts, 1, end=2))
    for prompt, found in zip(prompts, answers(model, prompts, 4, end), strict=True):
        alone = by_generate(model, prompt, end)
        assert found == alone or tied(model, prompt, found, alone, "float32")


def test_finished_rows_make_room(tiny_run: TinyRun) -> None:
    """No row waits for a longer one, and none is computed after its end."""
    model, prompts = model_of(tiny_run, "float32"), prompts_of(24)
    end = often(answers(model, prompts, 1, end=2))
    rows: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _module, _arguments, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    found = answers(model, prompts, 8, end)
    hook.remove()
    whole = 3 * 24 * 8  # what three batches take that wait for their longest row
    assert sum(rows) < 1.2 * sum(map(len, found)) < whole
    assert max(rows) == 8


@pytest.mark.parametrize("make", ["llama", "mamba"])
def test_a_sample_depends_on_its_prompt_and_number_alone(tiny_run: TinyRun, make: str) -> None:
    """Not on the batch, the order, or which others are drawn; the last model is left to ``generate``."""
    model = model_of(tiny_run, "float32") if make == "llama" else mamba()
    prompts = [prompt for prompt in prompts_of(5) for _ in range(3)]
    draws = [Draw(1.0, 0.95, number) for _ in range(5) for number in range(3)]
    end = often(answers(model, prompts, 1, end=2, count=12, draws=draws))
    alone = answers(model, prompts, 1, end, 12, draws)
    assert answers(model, prompts, 7, end, 12, draws) == alone
    assert answers(model, prompts[::-1], 4, end, 12, draws[::-1]) == alone[::-1]
    assert answers(model, prompts[4:6], 2, end, 12, draws[4:6]) == alone[4:6]
    assert len(set(map(tuple, alone))) > 10, "the samples of a prompt differ"
    greedy = answers(model, prompts[::3], 4, end, 12)
    cold = answers(model, prompts[::3], 4, end, 12, [Draw(1e-4, 1.0, 0)] * 5)
    assert cold == greedy


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.2, 0.0]),
        (1.0, 0.6, [0.625, 0.375, 0.0, 0.0]),
        (0.5, 1.0, [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38, 0.0]),
    ],
)
def test_tokens_come_as_often_as_they_are_likely(temperature: float, top_p: float, expected: list[float]) -> None:
    """The smallest set of tokens that has top-p of the probability; temperature is a power of it."""
    logits = torch.tensor([0.5, 0.3, 0.2, 0.0]).log().expand(20_000, -1)
    sampling = Sampling(temperature, top_p, [np.random.default_rng(7)])
    tokens = sampled(logits, [0] * len(logits), sampling)
    assert tokens.shape == (20_000, 1)
    shares = torch.bincount(tokens.flatten(), minlength=4) / len(tokens)
    assert shares.tolist() == pytest.approx(expected, abs=0.015)  # more than 4 standard deviations
