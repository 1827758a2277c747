"""What a captured step replays computes what the ordinary step computes; the capture itself needs a GPU."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from trl.trainer.sft_trainer import SFTTrainer

from steps.train.graph.batch import StaticBatch
from steps.train.graph.capture import CapturedStep
from steps.train.graph.training import CapturedTraining
from steps.train.kernels.fuse import Fusion, fuse
from steps.train.kernels.seeds import Seeds
from tests.tiny_peft import PLAIN, PLANS, decoder, float32_trainer, tiny_peft
from tests.tiny_run import TinyRun
from tests.train.packed import BLOCK, TRAINED, packed


def ordinary(model: PeftModel, batch: dict[str, Any], items: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of transformers' own forward pass and loss."""
    model.zero_grad()
    inputs = {name: batch[name] for name in ("input_ids", "position_ids", "labels")}
    loss = model(**inputs, num_items_in_batch=torch.tensor(items), use_cache=False).loss
    loss.backward()
    return loss.detach(), gradients(model)


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def captured(model: PeftModel, fusion: Fusion, *, on_graph: bool = False) -> CapturedStep:
    return CapturedStep(model, fusion, tokens=96, block=BLOCK, sequences=16, autocast=None, on_graph=on_graph)


@pytest.mark.parametrize("plan", list(PLANS))
def test_loss_and_gradients_are_those_of_the_ordinary_pass(tmp_path: Path, plan: str) -> None:
    model = tiny_peft(tmp_path)
    fusion = fuse(model, PLANS[plan])
    step = captured(model, fusion)
    for number in range(3):  # the static memory is used again
        inputs = packed([[7 + number, 20], [30], [5]], seed=number)
        loss, expected = ordinary(model, inputs, 70)
        model.zero_grad()
        found = step.run(inputs, torch.tensor(70))
        assert found is not None
        torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-6)
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    assert step.replayed == 3


def overwrite(step: CapturedStep) -> None:
    """Have each pass write its gradients where the one before wrote them, as a graph's replay does."""
    run, memory = step._replay, list[torch.Tensor]()

    def replay(batch: StaticBatch) -> torch.Tensor:
        loss = run(batch)
        memory.extend(gradient.clone() for gradient in step.gradients[len(memory) :])
        torch._foreach_copy_(memory, step.gradients)
        step.gradients = memory
        return loss

    setattr(step, "_replay", replay)  # noqa: B010 - a method of this one step


@pytest.mark.parametrize("overwrites", [False, True])
def test_micro_batches_add_up(tmp_path: Path, overwrites: bool) -> None:
    """A replay overwrites its gradients, so those of earlier micro-batches are set aside."""
    model = tiny_peft(tmp_path)
    step = captured(model, fuse(model, PLAIN))
    if overwrites:
        overwrite(step)
    alone = []
    for seed in (1, 2, 3):
        model.zero_grad()  # the trainer drops them
        step.run(packed(seed=seed), 100)
        alone.append(gradients(model))
    model.zero_grad()
    for seed in (1, 2, 3):
        step.run(packed(seed=seed), 100)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, sum(one[name] for one in alone), rtol=1e-5, atol=1e-7)


def test_a_weight_without_a_part_keeps_no_gradient(tmp_path: Path) -> None:
    """The optimiser would decay it."""
    model = tiny_peft(tmp_path)
    fusion = fuse(model, PLAIN)
    model.register_parameter("idle", torch.nn.Parameter(torch.ones(3)))
    step = captured(model, fusion)
    assert step.run(packed(), TRAINED) is not None
    assert cast(Any, model).idle.grad is None


def test_a_batch_that_does_not_fit_goes_the_ordinary_way_and_adds_up(tmp_path: Path) -> None:
    model = tiny_peft(tmp_path)
    step = captured(model, fuse(model, PLAIN))
    assert step.run(packed([[33]]), 50) is None
    _, expected = ordinary(model, packed([[40]]), 50)  # leaves its gradients
    assert step.run(packed(), 50) is None  # within an optimiser step nothing is captured
    model.zero_grad()
    step.run(packed(), 50)
    alone = gradients(model)
    assert step.run(packed([[40]]), 50) is None
    ordinary(model, packed([[40]]), 50)
    step.run(packed(), 50)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name] + alone[name], rtol=1e-5, atol=1e-7)
    assert "a sequence of 40 tokens, of at most 32" in str(step)


def test_seeds_of_a_whole_pass_are_those_of_its_calls() -> None:
    calls, whole = Seeds(), Seeds()
    whole.memory = torch.zeros(9, dtype=torch.int32)
    torch.manual_seed(4)
    one_by_one = [seed for count in (3, 1, 2, 3) for seed in calls.draw(count)]
    state = torch.get_rng_state()
    torch.manual_seed(4)
    whole.fill()
    assert whole.memory.tolist() == one_by_one
    assert torch.equal(torch.get_rng_state(), state)
    with whole.reading():
        assert [int(seed) for count in (3, 1, 2, 3) for seed in whole.draw(count)] == one_by_one
    assert all(isinstance(seed, int) for seed in whole.draw(2))  # an ordinary pass draws its own


@pytest.mark.parametrize("plan", list(PLANS))
def test_dropouts_masks_are_those_of_the_ordinary_pass(tmp_path: Path, plan: str) -> None:
    """In the forward pass, its recomputation and the backward pass; and others in each micro-batch."""
    model = tiny_peft(tmp_path, lora_dropout=0.3)
    step = captured(model, fuse(model, PLANS[plan]))
    inputs = packed()
    torch.manual_seed(11)
    expected = [ordinary(model, inputs, TRAINED) for _ in range(2)]
    model.zero_grad()
    torch.manual_seed(11)
    assert expected[0][0] != expected[1][0]
    for loss, by_weight in expected:
        found = step.run(inputs, TRAINED)
        assert found is not None
        torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-6)
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, by_weight[name], rtol=1e-4, atol=1e-6)
        model.zero_grad()


def test_a_capture_that_fails_leaves_training_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No capture fails without a GPU, so its pass is made to."""
    model = tiny_peft(tmp_path, lora_dropout=0.3)
    step = captured(model, fuse(model, PLAIN))

    def forbidden(batch: StaticBatch) -> torch.Tensor:
        torch.rand(3)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(step, "_pass", forbidden)
    torch.manual_seed(2)
    assert step.run(packed(), TRAINED) is None
    loss, _ = ordinary(model, packed(), TRAINED)
    torch.manual_seed(2)
    assert torch.equal(ordinary(model, packed(), TRAINED)[0], loss)
    assert str(step) == "not captured: RuntimeError: operation not permitted when stream is capturing"
    assert "forbidden" in step.error


def as_it_is(model: PeftModel) -> None:
    """Without a GPU."""


def other_dropout(model: PeftModel) -> None:
    decoder(model).layers[0].mlp.act_fn = torch.nn.Dropout(0.1)


def dynamic_rope(model: PeftModel) -> None:
    decoder(model).config.rope_parameters["rope_type"] = "dynamic"


def softcap(model: PeftModel) -> None:
    decoder(model).config.final_logit_softcapping = 30.0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(as_it_is, "CUDA GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")),
        (other_dropout, "dropout that is not ours: .*act_fn"),
        (dynamic_rope, "dynamic rotary"),
        (softcap, "final_logit_softcapping"),
    ],
)
def test_what_cannot_be_captured_says_why(tmp_path: Path, change: Callable[[PeftModel], None], why: str) -> None:
    model = tiny_peft(tmp_path, lora_dropout=0.1)
    fusion = fuse(model, PLAIN)
    change(model)
    step = captured(model, fusion, on_graph=change is as_it_is)
    assert step.run(packed(), TRAINED) is None
    assert re.search(f"not captured: .*{why}", str(step))


class Trainer(CapturedTraining, SFTTrainer):
    """As ours, without checkpoints."""


@pytest.mark.parametrize(("dropout", "accumulate"), [(0.0, 1), (0.1, 2)])
def test_a_training_learns_the_same(tiny_run: TinyRun, tmp_path: Path, dropout: float, accumulate: int) -> None:
    """Through TRL's trainer: losses, weights and counted tokens, without the metrics that TRL logs beside them."""
    runs = [trained(tiny_run, tmp_path, replayed, dropout, accumulate) for replayed in (False, True)]
    (losses, tokens, weights), (other_losses, other_tokens, other_weights) = runs
    assert len(losses) == 6
    assert other_losses == pytest.approx(losses, abs=1e-3)
    assert other_tokens == tokens
    for name, weight in weights.items():
        torch.testing.assert_close(other_weights[name], weight, rtol=0, atol=2e-3)  # less than one step, of 5e-3


def trained(
    run: TinyRun, folder: Path, replayed: bool, dropout: float, accumulate: int
) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """Loss and tokens of each step, and the adapter."""
    settings = {"max_steps": 6, "per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulate}
    trainer = cast(Trainer, float32_trainer(Trainer, run, folder, dropout, **settings))
    model = cast(PeftModel, trainer.model)
    fusion = fuse(model, PLANS["layers"])
    if replayed:
        longest = max(len(block["input_ids"]) for block in run.blocks["train"])
        trainer.captured = CapturedStep(
            model, fusion, tokens=longest, block=longest, sequences=64, autocast=None, on_graph=False
        )
    trainer.train()
    if trainer.captured is not None:
        assert trainer.captured.replayed == 6 * accumulate, str(trainer.captured)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    return [entry["loss"] for entry in logs], [entry["num_tokens"] for entry in logs], weights
