"""A training killed with an adapter, optimiser or schedule of another kind ends with the same bytes too."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steps.files import hashes
from steps.train.params import TrainingParameters
from tests.tiny_run import TinyRun
from tests.train.killed import KillPoint, Work, train_until

KINDS: dict[str, dict[str, Any]] = {
    "loftq, LoRA+": {"lora": {"r": 4, "initialization": "loftq", "loraplus_lr_ratio": 4}},
    "eva, dora": {"lora": {"r": 4, "initialization": "eva", "dora": True}, "optimizer": "paged_adamw_8bit"},
    "whole modules": {"lora": {"r": 4, "modules_to_save": ["lm_head", "norm"]}, "optimizer": "lion_8bit"},
    "plateau": {"lora": {"r": 4}, "schedule": "reduce_lr_on_plateau", "schedule_arguments": {"patience": 0}},
    "greedy": {
        "lora": {"r": 4},
        "schedule": "greedy",
        "schedule_arguments": {"patience": 0, "min_lr": 1e-4, "max_lr": 1e-2},
        "optimizer": "ademamix_8bit",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed(tiny_run: TinyRun, tmp_path: Path, kind: str) -> None:
    values = {"max_steps": 7, "batch_size": 2, "learning_rate": 5e-3, "warmup_ratio": 0, **KINDS[kind]}
    training = TrainingParameters.model_validate(values)
    work = replace(Work.of(tiny_run, tmp_path), training=training)
    work.undisturbed(tmp_path / "whole")
    assert train_until(work, KillPoint("optimizer", 6), tmp_path / "killed") == -signal.SIGKILL
    report = work.train(tmp_path / "resumed")
    assert report.resumed_from == [4]
    assert hashes(tmp_path / "resumed") == hashes(tmp_path / "whole")
