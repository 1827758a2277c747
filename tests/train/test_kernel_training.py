"""Trainings with the fused path, by TRL's trainer on packed blocks, learn what those of the plain path learn."""

from pathlib import Path
from typing import cast

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from trl.trainer.sft_trainer import SFTTrainer

from steps.device import describe_device
from steps.quantize.load import load_quantized
from steps.train.kernels.fuse import fuse
from tests.tiny_peft import PLANS, float32_trainer
from tests.tiny_run import TinyRun

CURVE = 2e-3
"""Nats: by so much two curves of ten steps in float32 may differ, since roundings add up from step to step."""


def trained(
    run: TinyRun, folder: Path, plan: str | None, dropout: float = 0.0, steps: int = 10
) -> tuple[list[float], PeftModel]:
    """Loss of each step, and the model; fused unless ``plan`` is None."""
    settings = {"max_steps": steps, "per_device_train_batch_size": 2, "lr_scheduler_type": "constant"}
    trainer = float32_trainer(SFTTrainer, run, folder, dropout, **settings)
    model = cast(PeftModel, trainer.model)
    if plan is not None:
        assert fuse(model, PLANS[plan]).left == {}
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], model


def test_the_loss_curve_is_that_of_the_plain_path(tiny_run: TinyRun, tmp_path: Path) -> None:
    plain, _ = trained(tiny_run, tmp_path, None)
    assert plain[0] - plain[-1] > 0.2  # there is a curve
    for plan in PLANS:
        losses, _ = trained(tiny_run, tmp_path, plan)
        assert losses == pytest.approx(plain, abs=CURVE)


def test_the_adapter_is_saved_in_pefts_layout(tiny_run: TinyRun, tmp_path: Path) -> None:
    _, plain = trained(tiny_run, tmp_path, None)
    _, fused = trained(tiny_run, tmp_path, "norms")
    plain.save_pretrained(str(tmp_path / "plain"))
    fused.save_pretrained(str(tmp_path / "fused"))
    names = [set(load_file(tmp_path / kind / "adapter_model.safetensors")) for kind in ("plain", "fused")]
    assert names[0] == names[1]
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {
        path.name for path in (tmp_path / "fused").iterdir()
    }
    device = describe_device("float32", "sdpa")
    loaded = PeftModel.from_pretrained(load_quantized(tiny_run.model, device), str(tmp_path / "fused")).eval()
    ids = torch.tensor([tiny_run.blocks["train"][0]["input_ids"]], device=loaded.device)
    with torch.no_grad():
        expected = fused.eval()(input_ids=ids).logits
        torch.testing.assert_close(loaded(input_ids=ids).logits, expected, rtol=1e-3, atol=1e-3)


def test_trained_twice_is_equal_to_the_bit(tiny_run: TinyRun, tmp_path: Path) -> None:
    first, second = (trained(tiny_run, tmp_path, "layers", dropout=0.1, steps=3)[1] for _ in range(2))
    other = dict(second.named_parameters())
    assert all(torch.equal(weight, other[name]) for name, weight in first.named_parameters())
