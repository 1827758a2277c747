"""Only what is better is promoted."""

import pytest

from steps.evaluate.report import EvaluationReport, Figure
from steps.merge.report import FromTrained, MergeReport
from steps.promote.gate import decide
from steps.promote.params import PromotionParameters


def evaluation(low: float = -0.4, high: float = -0.2, only_code: float = 0.1) -> EvaluationReport:
    """A report whose loss difference has that interval, and whose share of pure code changed by that much."""
    loss = Figure(
        name="loss",
        base=2.0,
        tuned=1.7,
        difference=-0.3,
        low=low,
        high=high,
        unit="nats/token",
        better="lower",
    )
    code = Figure(
        name="only code",
        base=0.5,
        tuned=0.5 + only_code,
        difference=only_code,
        low=only_code,
        high=only_code,
        unit="share",
        better="higher",
    )
    return EvaluationReport(
        figures=[loss, code],
        samples=[],
        loss_rows=20,
        loss_tokens=1000,
        answers=20,
        confidence=0.95,
        max_new_tokens=64,
        device="",
        seconds=1.0,
    )


def merge(logits: float = 0.5, loss: float = 1.7, divergence: float = 0.2, trained: float = 1.7) -> MergeReport:
    """A report of a merge: largest logit difference, the merged model's loss, KL from the trained one and its loss."""
    differences = {"positions": 1, "max_logit_difference": 20.0, "mean_logit_difference": 1.0, "top1_agreement": 0.8}
    target = {"target": "full_precision", "written": True, "answers_that_differ": 1}
    from_trained = {"kl_divergence": divergence, "expected_loss": trained, "loss": loss}
    return MergeReport(
        base_model="base",
        target="full_precision",
        quantization="nf4",
        dequantized_weights=0,
        from_trained=[FromTrained.model_validate({**differences, **target, **from_trained})],
        kl_divergence_bound=0.5,
        loss_rise_bound=0.1,
        max_new_tokens=8,
        samples=[],
        changed_weights=1,
        unchanged_weights=1,
        rows=1,
        positions=1,
        max_logit_difference=logits,
        mean_logit_difference=0.0,
        top1_agreement=1.0,
        adapter_loss=1.7,
        merged_loss=loss,
        max_logit_difference_bound=1.0,
        max_loss_difference_bound=0.01,
        bytes=1,
        device="",
        seconds=1.0,
    )


def test_better_is_promoted() -> None:
    decision = decide(evaluation(), merge(), PromotionParameters())
    assert decision.promoted
    assert decision.stage == "staging"
    assert "Promoted to staging" in decision.html()


@pytest.mark.parametrize(
    ("report", "merged", "failed"),
    [
        (evaluation(high=0.0), merge(), "completion loss fell"),
        (evaluation(low=-0.4, high=0.1), merge(), "completion loss fell"),
        (evaluation(only_code=-0.05), merge(), "answers that are only code did not get fewer"),
        (evaluation(), merge(logits=1.5), "merged model is base + adapter"),
        (evaluation(), merge(loss=1.72), "merged model is base + adapter"),
        (evaluation(), merge(logits=float("nan")), "merged model is base + adapter"),
        (evaluation(), merge(divergence=0.51), "merged model is near what was evaluated"),
        (evaluation(), merge(divergence=float("nan")), "merged model is near what was evaluated"),
        (evaluation(), merge(trained=1.59), "merged model is near what was evaluated"),
    ],
)
def test_anything_else_is_kept_back(report: EvaluationReport, merged: MergeReport, failed: str) -> None:
    decision = decide(report, merged, PromotionParameters())
    assert not decision.promoted
    assert [condition.name for condition in decision.conditions if not condition.passed] == [failed]
    assert "Not promoted" in decision.html()


def test_a_merged_model_with_a_lower_loss_is_no_worse() -> None:
    assert decide(evaluation(), merge(trained=2.0), PromotionParameters()).promoted


def test_a_larger_gain_can_be_asked_for() -> None:
    assert decide(evaluation(), merge(), PromotionParameters(min_loss_gain=0.19)).promoted
    assert not decide(evaluation(), merge(), PromotionParameters(min_loss_gain=0.21)).promoted
    assert decide(evaluation(only_code=-0.05), merge(), PromotionParameters(max_rate_drop=0.06)).promoted
