"""Only what is better is promoted."""

import pytest
from pydantic import ValidationError

from steps.evaluate.report import EvaluationReport, ProductionReport
from steps.merge.report import FromTrained, MergeReport
from steps.promote.gate import decide
from steps.promote.params import Gain, PromotionParameters
from tests.evaluations import evaluation_report, figure


def evaluation(
    low: float = -0.4, high: float = -0.2, only_code: float = 0.1, noise: float | None = None
) -> EvaluationReport:
    """A report whose loss difference has that interval, and whose share of pure code changed by that much; both have
    that noise."""
    loss = figure("loss", 2.0, 1.7, low, high, noise=noise)
    code = figure("only code", 0.5, 0.5 + only_code, only_code, only_code, noise=noise)
    return evaluation_report([loss, code])


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


def asked(by: float, figure: str = "loss") -> PromotionParameters:
    """One gain alone."""
    return PromotionParameters(gains=(Gain(figure=figure, by=by),))


def measured(against: EvaluationReport, version: int = 3) -> EvaluationReport:
    """A candidate that is better than its base, and has those figures against the version in production."""
    return evaluation().model_copy(update={"production": ProductionReport(version=version, figures=against.figures)})


def test_better_is_promoted() -> None:
    decision = decide(evaluation(), merge(), PromotionParameters())
    assert decision.promoted
    assert decision.stage == "staging"
    assert [condition.detail for condition in decision.conditions[:2]] == [
        "2.000 to 1.700 nats/token; 95% interval of the difference -0.400 to -0.200, needed below 0",
        "50.0% to 60.0%, may be worse by 0.0%",
    ]
    assert "Promoted to staging" in decision.html()


@pytest.mark.parametrize(
    ("report", "merged", "failed"),
    [
        (evaluation(high=0.0), merge(), "loss better than the base"),
        (evaluation(low=-0.4, high=0.1), merge(), "loss better than the base"),
        (evaluation(only_code=-0.05), merge(), '"only code" no worse than the base'),
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
    assert decide(evaluation(), merge(), asked(0.19)).promoted
    assert not decide(evaluation(), merge(), asked(0.21)).promoted
    allowing = PromotionParameters(allowed_regressions={"only code": 0.06})
    assert decide(evaluation(only_code=-0.05), merge(), allowing).promoted


def test_a_gain_within_the_noise_is_none() -> None:
    """Whatever gain the parameters ask for; the larger of both counts."""
    assert decide(evaluation(noise=0.19), merge(), PromotionParameters()).promoted
    decision = decide(evaluation(noise=0.2), merge(), asked(0.1))
    assert [one.passed for one in decision.conditions] == [False, True, True, True]
    assert decision.conditions[0].detail.endswith("needed below -0.2, noise 0.2")
    assert not decide(evaluation(noise=0.1), merge(), asked(0.2)).promoted


def test_noise_allows_no_fall() -> None:
    decision = decide(evaluation(only_code=-0.05, noise=0.1), merge(), PromotionParameters())
    assert not decision.promoted
    assert decision.conditions[1].detail.endswith("may be worse by 0.0%, noise 10.0%")


@pytest.mark.parametrize(
    ("report", "production", "failed"),
    [
        (evaluation(), 0, []),
        (measured(evaluation()), 3, []),
        (measured(evaluation()), 0, []),  # nothing is in production any more
        (measured(evaluation(low=-0.1, high=0.0)), 3, ["loss better than production"]),
        (measured(evaluation(low=0.0, high=0.0)), 3, ["loss better than production"]),
        (measured(evaluation(noise=0.3)), 3, ["loss better than production"]),
        (measured(evaluation(only_code=-0.01)), 3, ['"only code" no worse than production']),
        (measured(evaluation()), 4, ["measured against production"]),
        (evaluation(), 4, ["measured against production"]),
    ],
)
def test_what_is_in_production_has_to_be_beaten(report: EvaluationReport, production: int, failed: list[str]) -> None:
    decision = decide(report, merge(), PromotionParameters(), production)
    assert [condition.name for condition in decision.conditions if not condition.passed] == failed
    assert decision.promoted == (not failed)
    assert decision.production == production
    assert (f"version {production}" if production else "none") in decision.html()


@pytest.mark.parametrize(
    ("state", "why"),
    [({"same": True}, "this very adapter: a tie"), ({"why_not": "it has no adapter any more"}, "has no adapter")],
)
def test_production_that_was_not_asked_is_not_beaten(state: dict[str, object], why: str) -> None:
    production = ProductionReport.model_validate({"version": 3, **state})
    report = evaluation().model_copy(update={"production": production})
    decision = decide(report, merge(), PromotionParameters(), 3)
    (failed,) = [condition for condition in decision.conditions if not condition.passed]
    assert failed.name == "measured against production"
    assert why in failed.detail
    assert why in report.html() or "this very one" in report.html()


def test_gains_of_shares_go_up() -> None:
    assert decide(evaluation(only_code=0.1), merge(), asked(0.09, "only code")).promoted
    decision = decide(evaluation(only_code=0.1), merge(), asked(0.1, "only code"))
    assert not decision.promoted
    assert "needed above 10.0%" in decision.conditions[0].detail
    assert (decision.conditions[0].needed, decision.conditions[0].against) == (0.1, "base")


def test_a_loss_may_rise_by_what_is_allowed() -> None:
    worse = evaluation().figures[0].model_copy(update={"difference": 0.3, "tuned": 2.3})
    report = evaluation().model_copy(update={"figures": [worse, evaluation().figures[1]]})
    for allowed, promoted in ((0.29, False), (0.31, True)):
        gate = PromotionParameters(
            gains=(Gain(figure="only code"),), allowed_regressions={"loss": allowed, "only code": 0.0}
        )
        assert decide(report, merge(), gate).promoted == promoted


def test_what_was_not_measured_is_not_proven() -> None:
    decision = decide(evaluation(), merge(), asked(0.0, "passes its tests"))
    assert [one.detail for one in decision.conditions if not one.passed] == [
        "passes its tests was not measured: no row had tests that count, or no code ran"
    ]
    sampled = evaluation().figures[1].model_copy(update={"name": "pass@10 (sampled)"})
    report = evaluation().model_copy(update={"figures": [*evaluation().figures, sampled]})
    assert decide(report, merge(), asked(0.05, "pass@10")).promoted


@pytest.mark.parametrize("figure", ["loss", "perplexity", "repetition", "pass@10", "stops", "passes its tests"])
def test_a_share_of_answers_is_quoted_in_a_sentence(figure: str) -> None:
    title = f'"{figure}"' if figure in ("stops", "passes its tests") else figure
    assert decide(evaluation(), merge(), asked(0.0, figure)).conditions[0].name == f"{title} better than the base"


def test_a_figure_that_there_is_not() -> None:
    for name in ("length", "pass@0", "los"):
        with pytest.raises(ValidationError, match="is no figure that is better or worse"):
            Gain(figure=name)
        with pytest.raises(ValidationError, match="is no figure that is better or worse"):
            PromotionParameters(allowed_regressions={name: 0.0})
