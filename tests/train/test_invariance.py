"""How a device computes must not change what is learned: each case beside a control that the same comparison sees.

Everything is float32 on the CPU but the stored base weights, which are NF4. The losses may lie ``LOSS`` nats apart and
what the adapters have learned ``ADAPTER`` of its size: float32 rounds to 6e-8, and a training adds up many roundings.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict

from steps.device import describe_device
from steps.quantize.params import QuantizationParameters
from steps.quantize.quantize import quantize_model
from steps.train.params import LoraParameters
from steps.train.plan.params import PlanParameters
from tests.tiny_run import TinyRun, with_biases
from tests.train.invariance import Learned, distance, learn, unpacked
from tests.train.watched import Watched

LOSS = 1e-5
ADAPTER = 1e-5


def same(one: Learned, other: Learned) -> bool:
    return distance(one, other).within(LOSS, ADAPTER)


def uneven(blocks: DatasetDict) -> DatasetDict:
    """The first eleven blocks, of which every third trains few tokens: a mean of means is not the mean of all."""

    def thin(block: dict[str, list[int]], number: int) -> dict[str, list[int]]:
        trained = [position for position, label in enumerate(block["labels"]) if label != -100]
        kept = set(trained if number % 3 else trained[-4:])
        return {**block, "labels": [x if at in kept else -100 for at, x in enumerate(block["labels"])]}

    train = blocks["train"].select(range(11)).map(thin, with_indices=True)
    return DatasetDict(train=train, validation=blocks["validation"])


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 8), (2, 4), (4, 2)])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_micro_batch_times_accumulation(
    tiny_run: TinyRun, tmp_path: Path, batch_size: int, accumulation: int, packed: bool
) -> None:
    """Eleven blocks: an epoch's second window has three, which is no multiple of two or four either."""
    blocks = uneven(tiny_run.blocks if packed else unpacked(tiny_run.blocks))
    whole = learn(tiny_run, tmp_path / "8x1", blocks, batch_size=8)
    split = learn(tiny_run, tmp_path / "split", blocks, batch_size=batch_size, gradient_accumulation=accumulation)
    assert len(whole.losses) == 2 * 3 * 2, "two windows in each of three epochs, and an evaluation after each"
    assert whole.losses[0] > whole.losses[5]
    assert same(whole, split), "the validation loss too, which decides what adapter is kept"


def test_the_mean_of_means_is_seen(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the number of tokens of the whole window each micro-batch weighs the same."""
    from steps.train.trainer import ResumableTrainer

    blocks = uneven(tiny_run.blocks)
    whole = learn(tiny_run, tmp_path / "8x1", blocks, batch_size=8)
    monkeypatch.setattr(ResumableTrainer, "_get_num_items_in_batch", lambda *_: None)
    split = learn(tiny_run, tmp_path / "1x8", blocks, batch_size=1, gradient_accumulation=8)
    assert not same(whole, split)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_attention(tiny_run: TinyRun, tmp_path: Path, packed: bool) -> None:
    blocks = tiny_run.blocks if packed else unpacked(tiny_run.blocks)
    kernels = [
        learn(tiny_run, tmp_path / kernel, blocks, attention=kernel, max_steps=6) for kernel in ("sdpa", "eager")
    ]
    assert same(*kernels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flash_attention_2 needs a GPU: see gpu_invariance.py")
def test_flash_attention(tiny_run: TinyRun, tmp_path: Path) -> None:
    """In bfloat16, which keeps 8 bits: both kernels round, and neither like the other."""
    pytest.importorskip("flash_attn", reason="flash-attn is not installed")
    common: dict[str, Any] = {"precision": "bfloat16", "max_steps": 6}
    sdpa, flash = (
        learn(tiny_run, tmp_path / kernel, attention=kernel, **common) for kernel in ("sdpa", "flash_attention_2")
    )
    assert distance(sdpa, flash).within(2e-3, 0.02)


def every_example_a_step(run: TinyRun, output: Path, blocks: DatasetDict) -> Learned:
    """Each step sees all examples, so that their order counts for nothing; so does each evaluation."""
    return learn(run, output, blocks, batch_size=len(blocks["train"]), epochs=4)


def test_packing(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Control: the same blocks without their sequences' lengths, as a packing without isolation has them."""
    few = DatasetDict(train=tiny_run.blocks["train"].select(range(6)), validation=tiny_run.blocks["validation"])
    alone, joined = unpacked(few), few.remove_columns("seq_lengths")
    assert len(alone["train"]) > len(few["train"]) == 6
    names = {"packed": few, "unpacked": alone, "joined": joined}
    learned = {name: every_example_a_step(tiny_run, tmp_path / name, blocks) for name, blocks in names.items()}
    assert same(learned["packed"], learned["unpacked"])
    assert not same(learned["packed"], learned["joined"])


def test_gradient_checkpointing(tiny_run: TinyRun, tmp_path: Path) -> None:
    """With dropout: the recomputed forward pass draws the same mask. Control: another seed draws others."""
    lora = LoraParameters(r=8, dropout=0.2)
    common: dict[str, Any] = {"lora": lora, "max_steps": 6}
    layers = PlanParameters(recompute="layers")
    on = learn(tiny_run, tmp_path / "on", **common, plan=layers)
    off = learn(tiny_run, tmp_path / "off", **common)
    other = learn(tiny_run, tmp_path / "other", **common, plan=layers, seed=1)
    assert on.losses == off.losses
    assert all(torch.equal(weight, off.weights[name]) for name, weight in on.weights.items())
    assert not same(on, other)


@pytest.mark.parametrize(("kind", "stored"), [("nf4", torch.uint8), ("int8", torch.int8), ("none", torch.float32)])
def test_all_adapter_weights_change_and_no_base_weight(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, stored: torch.dtype
) -> None:
    """Quantised weights are compared as they are stored: their codes, and the codes' scales."""
    (tmp_path / "model").mkdir()
    quantize_model(tiny_run.lock, QuantizationParameters.model_validate({"kind": kind}), tmp_path / "model")
    run = replace(tiny_run, model=tmp_path / "model")
    watched = Watched(monkeypatch)
    learn(run, tmp_path / "adapter", optimizer="adamw_torch", learning_rate=5e-3, max_steps=4)
    assert watched.moved() == watched.trained()
    assert len(watched.trained()) == 2 * 7 * 2
    assert sum(tensor.dtype == stored for tensor in watched.before.values()) >= 2 * 7, "every layer is compared"


def test_a_base_weight_that_changes_is_seen(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: biases that are trained in place."""
    run = with_biases(tiny_run, tmp_path)
    watched = Watched(monkeypatch)
    learn(run, tmp_path / "adapter", lora=LoraParameters(r=8, bias="all"), max_steps=2)
    changed = {name for name in watched.moved() if "lora_" not in name}
    assert changed
    assert all(name.endswith(".bias") for name in changed)


def test_the_adapter_starts_the_same_whatever_was_drawn_before(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The seed is set before the adapter is made. Control: another seed."""
    digests = []
    for number, seed in enumerate((42, 42, 43)):
        torch.manual_seed(number)
        digests.append(tiny_run.train(tmp_path / str(number), seed=seed, max_steps=2).initial_adapter_sha256)
    assert digests[0] == digests[1] != digests[2]
    assert describe_device().kind == "cuda" or digests[0] == tiny_run.report.initial_adapter_sha256
