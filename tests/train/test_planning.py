"""Whatever the plan, the pipeline's training learns the same."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict

from steps.errors import ConfigError
from steps.train import build, planning
from steps.train.build import largest_batch, without_padding
from steps.train.graph.batch import StaticBatch
from steps.train.plan.choose import PlannedPlan
from steps.train.plan.memory import predict_memory
from steps.train.plan.params import PlanParameters
from steps.train.plan.plan import Plan
from tests.tiny_run import TinyRun
from tests.train.packed import packed


@pytest.mark.parametrize(
    "plan",
    [
        Plan(2, 1, recompute="nothing"),
        Plan(1, 2, recomputed_layers=1, recompute="mlp", held_layers=1),
        Plan(2, 1, recomputed_layers=2),
    ],
    ids=str,
)
def test_fused_plans_learn_what_the_plain_one_learns(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plan: Plan
) -> None:
    """Dropout apart, whose masks are others; the tiny run's is 0.05, so that its losses are near and no more."""
    lora = tiny_run.training.lora.model_copy(update={"dropout": 0.0})
    plain = tiny_run.train(tmp_path / "plain", plan=PlanParameters(kernels="plain"), lora=lora)
    assert "fused" not in capsys.readouterr().out
    monkeypatch.setattr(build, "_make_faster", build._fuse)  # the GPU's kernels, by their twins in plain torch
    monkeypatch.setattr(
        planning, "plans", lambda job, *_: [PlannedPlan(plan, predict_memory(job, plan), seconds=None, order=0)]
    )
    fused = tiny_run.train(tmp_path / "fused", lora=lora)
    assert "fused 14 projections" in capsys.readouterr().out
    for one, other in zip(plain.steps, fused.steps, strict=True):
        assert other.loss == pytest.approx(one.loss, abs=0.02)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=0.1)
    assert fused.validation[-1].loss == pytest.approx(plain.validation[-1].loss, abs=0.02)
    assert fused.tokens == plain.tokens


def test_no_batch_is_larger_than_the_largest() -> None:
    """Every choice of up to two blocks fits the static memory of that size."""
    lengths = [[9, 12], [20], [5, 6, 7], [32]]
    blocks = Dataset.from_list([{"input_ids": [4] * sum(one), "seq_lengths": one} for one in lengths])
    assert largest_batch(blocks, 2) == (64, 3 + 2 + 1)
    static = StaticBatch(64, 32, 6, torch.device("cpu"))
    for count in (1, 2):
        for chosen in combinations(lengths, count):
            assert static.misfit(packed(list(chosen))) is None


def test_blocks_without_padding_learn_the_same(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Rows of different lengths, padded and then one after the other."""
    padded = DatasetDict({name: split.remove_columns("seq_lengths") for name, split in tiny_run.blocks.items()})
    assert len(set(map(len, padded["train"]["input_ids"]))) > 1
    runs = [tiny_run.train(tmp_path / "padded", padded), tiny_run.train(tmp_path / "flat", without_padding(padded))]
    assert runs[0].tokens == runs[1].tokens
    for one, other in zip(runs[0].steps, runs[1].steps, strict=True):
        assert other.loss == pytest.approx(one.loss, abs=0.02)
    assert without_padding(tiny_run.blocks)["train"] is tiny_run.blocks["train"], "they say it already"


def test_the_report_says_what_was_planned(tiny_run: TinyRun) -> None:
    choices = {one.name: (one.value, one.reason) for one in tiny_run.report.choices}
    assert choices["micro-batch"] == ("2 x 1", "2 blocks an optimiser step")
    assert choices["kernels"][0] == "fused"
    assert choices["kernels in the model"][0] == "loss of trained tokens alone; attention one sequence at a time"


def test_a_micro_batch_that_the_user_names(tiny_run: TinyRun, tmp_path: Path) -> None:
    report = tiny_run.train(tmp_path / "named", plan=PlanParameters(micro_batch=1))
    assert {one.value for one in report.choices if one.name == "micro-batch"} == {"1 x 2"}
    assert report.tokens == tiny_run.report.tokens
    with pytest.raises(ConfigError, match=r"parameters\.plan\.micro_batch: 3 does not divide the 2 blocks"):
        tiny_run.train(tmp_path / "wrong", plan=PlanParameters(micro_batch=3))
