"""Predicted memory against what was measured, and along the axes that no measurement has."""

from dataclasses import asdict, replace

import pytest

from steps.quantize.params import QuantizationParameters
from steps.train.params import LoraParameters, TrainingParameters
from steps.train.plan.job import Job
from steps.train.plan.memory import GIB, predict_memory
from steps.train.plan.plan import Plan
from tests.train.llama2_plans import LAYERS, ROWS, Measured, llama2


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_within_seven_percent(row: Measured) -> None:
    memory = predict_memory(row.job(), row.plan)
    assert memory.allocated / GIB == pytest.approx(row.allocated, rel=0.07)
    if row.reserved is not None:
        assert memory.reserved / GIB == pytest.approx(row.reserved, rel=0.07)


def test_every_part_counts() -> None:
    memory = predict_memory(ROWS[0].job(), ROWS[0].plan)
    assert memory.total == sum(asdict(memory).values()) - memory.allocated
    assert memory.total > memory.allocated


def _job(**training: object) -> Job:
    return replace(ROWS[0].job(), training=TrainingParameters.model_validate(training))


def test_optimizer_states() -> None:
    plan, trained = Plan(10, 1), llama2().lora_parameters(LoraParameters())
    states = {
        name: predict_memory(_job(optimizer=name), plan).optimizer / trained
        for name in ("adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "sgd")
    }
    assert states == pytest.approx(
        {"adamw_torch_fused": 4, "adamw_8bit": 2.032, "paged_adamw_32bit": 8, "sgd": 0}, rel=1e-3
    )


def test_weights_by_kind() -> None:
    kinds = {kind: llama2().weight_bytes(QuantizationParameters(kind=kind), 2) for kind in ("nf4", "int8", "none")}
    assert kinds["none"] == 2 * 6_738_415_616  # Llama-2-7B's parameters
    assert kinds["nf4"] < 0.3 * kinds["none"] < kinds["int8"] < kinds["none"]


@pytest.mark.parametrize("fused", [True, False])
def test_more_of_anything_takes_more(fused: bool) -> None:
    job, plan = ROWS[0].job(), Plan(5, 1, fused=fused)
    total = predict_memory(job, plan).total
    assert predict_memory(job, replace(plan, micro_batch=10)).total > total
    assert predict_memory(job, replace(plan, recomputed_layers=1)).total < total
    assert predict_memory(job, replace(plan, recomputed_layers=LAYERS)).total < total
    assert predict_memory(replace(job, block=1024), plan).total > total
    assert predict_memory(_job(lora={"r": 128}), plan).total > total


def test_masks_grow_with_the_square() -> None:
    sdpa = replace(ROWS[0].job(), device=replace(ROWS[0].job().device, attention="sdpa"))
    masks = [
        predict_memory(sdpa, Plan(m, 1)).allocated - predict_memory(ROWS[0].job(), Plan(m, 1)).allocated
        for m in (5, 10)
    ]
    assert masks[1] == pytest.approx(4 * masks[0], rel=0.02)


def test_an_evaluation_needs_memory_beside_a_captured_step() -> None:
    captured, ordinary = (predict_memory(ROWS[0].job(), Plan(10, 1, captured=on)) for on in (True, False))
    assert captured.evaluation > 0 == ordinary.evaluation
    assert captured.total - captured.evaluation == ordinary.total


def test_layers_with_a_bias_keep_their_inputs() -> None:
    job = ROWS[0].job()
    linear = tuple(replace(one, bias=one.child in ("q_proj", "k_proj", "v_proj")) for one in job.shape.linear)
    biased = replace(job, shape=replace(job.shape, linear=linear))
    more = predict_memory(biased, Plan(10, 1)).activations - predict_memory(job, Plan(10, 1)).activations
    assert more == LAYERS * 3 * 4096 * 10 * 512 * 2


def test_more_trained_whole() -> None:
    whole = predict_memory(_job(lora={"modules_to_save": ["lm_head"]}), Plan(10, 1))
    none = predict_memory(_job(), Plan(10, 1))
    assert whole.adapter - none.adapter == 4 * 32000 * 4096
