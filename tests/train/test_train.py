"""Training on a tiny model: what is learned, kept, refused and repeated."""

import json
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from steps.device import describe_device
from steps.errors import DataError, ModelError
from steps.files import hashes
from steps.quantize.load import load_quantized
from steps.train.params import EarlyStoppingParameters
from tests.tiny_run import TinyRun


def test_every_adapter_weight_moved_and_the_loss_fell(tiny_run: TinyRun) -> None:
    weights = load_file(tiny_run.adapter / "adapter_model.safetensors")
    assert len(weights) == 2 * 7 * 2
    moved = {name for name, weight in weights.items() if "lora_B" in name and weight.abs().max() > 0}
    assert len(moved) == 2 * 7
    losses = [point.loss for point in tiny_run.report.validation]
    assert losses[-1] < losses[0]
    assert tiny_run.report.steps[-1].step == tiny_run.report.planned_steps == 12


def test_equal_parameters_give_the_equal_adapter(tiny_run: TinyRun, tmp_path: Path) -> None:
    tiny_run.train(tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(tiny_run.adapter)
    tiny_run.train(tmp_path / "other", seed=7)
    assert hashes(tmp_path / "other") != hashes(tiny_run.adapter)


def test_the_best_adapter_is_kept_and_training_stops(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Where only 100 nats count as an improvement, patience runs out after the first evaluation."""
    report = tiny_run.train(
        tmp_path / "adapter",
        learning_rate=0.1,  # too high, so that the best step is not simply the last
        max_steps=20,
        evaluate_every=1,
        early_stopping=EarlyStoppingParameters(patience=3, min_improvement=100),
    )
    losses = {point.step: point.loss for point in report.validation}
    assert report.best_step == min(losses, key=losses.__getitem__)
    assert report.steps[-1].step == 4 < report.planned_steps == 20
    assert report.stopped == f"validation loss no longer fell after step {report.best_step}"
    kept = _validation_loss(tiny_run, tmp_path / "adapter")
    assert kept == pytest.approx(losses[report.best_step], abs=0.02)


def _validation_loss(run: TinyRun, adapter: Path) -> float:
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_quantized(run.model, describe_device()), str(adapter))
    collator = DataCollatorForLanguageModeling(pad_token_id=3, padding_free=True)
    total = tokens = 0.0
    for block in run.blocks["validation"]:
        batch = collator([block])
        with torch.inference_mode():
            logits = model(
                input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
            ).logits.float()
        labels = batch["labels"][:, 1:].flatten()
        total += float(torch.nn.functional.cross_entropy(logits[0, :-1], labels, reduction="sum"))
        tokens += float((labels != -100).sum())
    return total / tokens


def test_training_that_changes_nothing_is_an_error(tiny_run: TinyRun, tmp_path: Path) -> None:
    """One step is all warm-up, and a warm-up starts at a learning rate of 0."""
    with pytest.raises(ModelError, match=r"parameters\.training: 1 optimiser steps left the adapter as it was"):
        tiny_run.train(tmp_path / "adapter", max_steps=1, evaluate_every=5)


def test_an_empty_training_split_is_an_error(tiny_run: TinyRun, tmp_path: Path) -> None:
    blocks = DatasetDict(train=tiny_run.blocks["train"].select([]), validation=tiny_run.blocks["validation"])
    with pytest.raises(DataError, match="the training split has no block"):
        tiny_run.train(tmp_path / "adapter", blocks)


def test_without_a_validation_split_the_last_adapter_is_kept(tiny_run: TinyRun, tmp_path: Path) -> None:
    blocks = DatasetDict(train=tiny_run.blocks["train"], validation=tiny_run.blocks["validation"].select([]))
    report = tiny_run.train(tmp_path / "adapter", blocks, max_steps=2, early_stopping=None)
    assert (report.best_step, report.validation) == (2, [])


def test_adapter_names_its_base_and_carries_the_template(tiny_run: TinyRun) -> None:
    config = json.loads((tiny_run.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_run.lock.name
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (64, 16, 0.05)
    assert "### RESPONSE:" in (tiny_run.adapter / "chat_template.jinja").read_text()
