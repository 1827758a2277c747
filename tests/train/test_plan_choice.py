"""Which plan is chosen, on cards and budgets that the machine need not have."""

from dataclasses import replace
from itertools import pairwise

import pytest

from steps.device import Hardware
from steps.device import choose as choose_device
from steps.errors import ConfigError, DeviceError
from steps.train.params import TrainingParameters
from steps.train.plan.cards import CARDS, Card, named_card
from steps.train.plan.choose import HEADROOM, STEP_DOWN, PlannedPlan, budget_of, plans, why
from steps.train.plan.job import Job
from steps.train.plan.memory import GIB
from steps.train.plan.params import PlanParameters
from steps.train.plan.plan import Plan
from tests.train.llama2_plans import LAYERS, llama2


def _job(hardware: Hardware) -> Job:
    return Job(llama2(), TrainingParameters(), choose_device(hardware), 512)


def _card(name: str) -> Hardware:
    card = named_card(name)
    return card.hardware(flash_attention=card.capability >= (8, 0))


def _plans(name: str, **given: object) -> list[PlannedPlan]:
    hardware = _card(name)
    return plans(_job(hardware), PlanParameters.model_validate(given), hardware)


def _chosen(job: Job, hardware: Hardware, available: int | None = None) -> tuple[PlannedPlan, dict[str, str]]:
    """The plan, and the reason of each choice."""
    free = PlanParameters()
    best = plans(job, free, hardware, available)[0]
    choices = why(job, free, best, budget_of(free, hardware, available))
    return best, {one.name: one.reason for one in choices}


@pytest.mark.parametrize("card", [card for card in CARDS if card.memory_gib > 9], ids=lambda card: card.short)
def test_the_notebooks_recipe_fits_every_card(card: Card) -> None:
    ladder = _plans(card.short)
    totals = [one.memory.total for one in ladder]
    assert totals[0] <= HEADROOM * card.memory_gib * GIB
    assert all(later <= STEP_DOWN * earlier for earlier, later in pairwise(totals))
    assert [one.order for one in ladder] == sorted(one.order for one in ladder)
    assert all(one.plan.micro_batch * one.plan.accumulation == 10 for one in ladder)


def test_more_memory_is_never_slower() -> None:
    orders = [_plans("h100", memory_gib=gib)[0].order for gib in (7, 8, 12, 16, 24, 48, 79)]
    assert orders == sorted(orders, reverse=True)


def test_nothing_fits() -> None:
    with pytest.raises(DeviceError, match=r"needs \d\.\d GiB and 4\.0 GiB may be used.*training\.lora\.r"):
        _plans("h100", memory_gib=4)
    with pytest.raises(DeviceError, match=r"leave parameters\.plan\.recompute to the planner"):
        _plans("h100", memory_gib=8, recompute="nothing")


def test_what_others_take_counts() -> None:
    hardware = _card("h100")
    best, reasons = _chosen(_job(hardware), hardware, available=8 * GIB)
    assert best.memory.total < 8 * GIB
    assert "of 8.0 GiB" in reasons["memory"]


def test_fixed_parts() -> None:
    assert {one.plan.micro_batch for one in _plans("h100", micro_batch=2)} == {2}
    layers = _plans("h100", recompute="layers")
    assert {one.plan.recomputed_layers for one in layers} == {LAYERS}
    norms = _plans("h100", recompute="norms")
    assert {(one.plan.recompute, one.plan.recomputed_layers) for one in norms} == {("norms", 0)}
    plain = _plans("h100", kernels="plain")
    assert not any(one.plan.fused or one.plan.captured or one.plan.held_layers for one in plain)


def test_micro_batch_that_divides_nothing() -> None:
    with pytest.raises(ConfigError, match=r"plan\.micro_batch: 4 does not divide the 10 blocks.*1, 2, 5, 10"):
        _plans("h100", micro_batch=4)


def test_falls_back_and_says_so() -> None:
    old = _card("t4")
    best, reasons = _chosen(_job(old), old)
    assert best.plan.fused
    assert not best.plan.captured
    assert "flash_attention_2" in reasons["CUDA graph"]
    dora = replace(_job(old), training=TrainingParameters.model_validate({"lora": {"dora": True}}))
    best, reasons = _chosen(dora, old)
    assert not best.plan.fused
    assert "DoRA" in reasons["kernels"]


def test_unknown_card_has_no_seconds() -> None:
    hardware = Hardware("cuda", "Some Card", 24 * GIB, (8, 6), flash_attention_installed=True)
    ladder = plans(_job(hardware), PlanParameters(), hardware)
    assert ladder[0].seconds is None
    assert ladder[0].plan == _plans("rtx3090")[0].plan


def test_processor_takes_the_recipe_as_it_is() -> None:
    hardware = Hardware("cpu", "CPU", 8 * GIB)
    (only,) = plans(_job(hardware), PlanParameters(), hardware)
    assert only.plan == Plan(5, 2, recompute="nothing")
    (plain,) = plans(_job(hardware), PlanParameters(kernels="plain"), hardware)
    assert not plain.plan.fused
    (again,) = plans(_job(hardware), PlanParameters(recompute="layers"), hardware)
    assert again.plan.recomputed_layers == LAYERS


@pytest.mark.parametrize("name", ["rtx4090", "RTX 4090", "rtx-4090", "NVIDIA GeForce RTX 4090"])
def test_names_of_a_card(name: str) -> None:
    assert named_card(name).short == "rtx4090"


def test_card_that_nobody_knows() -> None:
    with pytest.raises(DeviceError, match=r"--gpu voodoo2 is not in the table.*rtx4090"):
        named_card("voodoo2")
