"""Predicted speed against what one H100 and one H200 measured."""

from dataclasses import replace

import pytest

from steps.train.plan.cards import named_card
from steps.train.plan.plan import Plan
from steps.train.plan.speed import NOTEBOOK, notebook_plan, predict_step_seconds
from tests.train.llama2_plans import FITTED, OTHER, ROWS, Measured

H100 = named_card("h100")


def _speed(row: Measured) -> float:
    seconds = predict_step_seconds(row.job(), row.plan, named_card(row.card))
    return row.plan.micro_batch * row.plan.accumulation * 512 / seconds


@pytest.mark.parametrize("row", [row for row in ROWS if row.speed], ids=lambda row: row.name)
def test_within_ten_percent(row: Measured) -> None:
    assert _speed(row) == pytest.approx(row.speed, rel=0.1)


@pytest.mark.parametrize("row", OTHER, ids=lambda row: row.name)
def test_within_three_percent_on_a_card_that_nothing_was_fitted_to(row: Measured) -> None:
    assert _speed(row) == pytest.approx(row.speed, rel=0.03)


def test_order_of_the_captured_plans_is_the_measured_one() -> None:
    captured = [row for row in FITTED if row.plan.captured and row.plan.recompute != "nothing"]
    assert sorted(captured, key=_speed) == sorted(captured, key=lambda row: row.speed or 0)


def test_notebook() -> None:
    row = FITTED[-1]
    job = row.job()
    seconds = predict_step_seconds(job, notebook_plan(job), H100, NOTEBOOK)
    assert 5120 / seconds == pytest.approx(3106, rel=0.1)


def test_a_slower_card_is_slower() -> None:
    job, plan = ROWS[0].job(), Plan(10, 1, captured=True)
    seconds = [predict_step_seconds(job, plan, named_card(name)) for name in ("h100", "a100", "rtx4090", "t4")]
    assert seconds == sorted(seconds)


def test_held_weights_save_the_dequantising() -> None:
    job, plan = ROWS[0].job(), Plan(10, 1, captured=True)
    assert predict_step_seconds(job, replace(plan, held_layers=32), H100) < predict_step_seconds(job, plan, H100)
