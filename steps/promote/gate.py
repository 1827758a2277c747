"""Whether the tuned model is better than its base, and than what is in production."""

from collections.abc import Iterator, Sequence

from steps.evaluate.report import EvaluationReport, Figure, ProductionReport
from steps.merge.report import MergeReport
from steps.promote.params import PASS_AT, Gain, PromotionParameters
from steps.promote.report import Condition, PromotionDecision

BY_HAND = "promote it by hand with: qlora promote MODEL:VERSION --force REASON"


def decide(
    evaluation: EvaluationReport, merge: MergeReport, promotion: PromotionParameters, production: int = 0
) -> PromotionDecision:
    """Promote only what is proven better, lost nothing that it may not lose, and was merged right.

    A tie does not promote: the whole interval of a needed gain must lie beyond what is asked for, and beyond what the
    base's own figure changes when it is asked again. Noise only ever asks for more: an allowed regression stays what
    the parameter says. What was not measured is not proven.

    Args:
        evaluation: the figures of base, tuned and production.
        merge: how near the merged model is to what was evaluated.
        promotion: what is asked for.
        production: number of the version that is in production now, 0 where none is.
    """
    conditions = [*_against("base", evaluation.figures, evaluation, promotion)]
    conditions += _against_production(evaluation, promotion, production)
    conditions += _merged(merge)
    if evaluation.forgetting is not None and promotion.max_forgetting is not None:
        conditions.append(_remembers(evaluation.forgetting.figures[0], evaluation.confidence, promotion.max_forgetting))
    promoted = all(condition.passed for condition in conditions)
    return PromotionDecision(promoted=promoted, stage=promotion.stage, conditions=conditions, production=production)


def _against(
    against: str, figures: Sequence[Figure], evaluation: EvaluationReport, promotion: PromotionParameters
) -> Iterator[Condition]:
    """The gains that are asked for against that model, and the regressions that are not allowed."""
    named = {figure.name.removesuffix(" (sampled)"): figure for figure in figures}
    for gain in promotion.gains:
        if gain.against == against:
            yield _gained(gain, named.get(gain.figure), evaluation.confidence)
    for name, allowed in promotion.allowed_regressions.items():
        yield _kept(name, allowed, named.get(name), against)


def _against_production(
    evaluation: EvaluationReport, promotion: PromotionParameters, production: int
) -> Iterator[Condition]:
    """Fails where the candidate was not measured against what is in production now."""
    measured = evaluation.production
    if measured is not None and measured.figures:
        yield from _against("production", measured.figures, evaluation, promotion)
    why_not = _not_measured(measured, production)
    if why_not:
        yield Condition(name="measured against production", passed=False, detail=why_not, against="production")


def _not_measured(measured: ProductionReport | None, production: int) -> str:
    """Why the figures say nothing about what is in production, '' where they do."""
    if production and (measured is None or measured.version != production):
        then = f"version {measured.version}" if measured else "none"
        return (
            f"version {production} is in production now, and when the evaluation ran it was {then}; evaluate again, "
            f"with steps.evaluate.enable_cache: false, or {BY_HAND}"
        )
    if measured is None:
        return ""
    if measured.same:
        return f"version {measured.version} in production has this very adapter: a tie"
    return f"version {measured.version}: {measured.why_not}; {BY_HAND}" if measured.why_not else ""


def _gained(gain: Gain, figure: Figure | None, confidence: float) -> Condition:
    """The whole interval is beyond what is asked for, and beyond the noise."""
    name = f"{_title(gain.figure)} better than {'the base' if gain.against == 'base' else 'production'}"
    if figure is None:
        return Condition(name=name, passed=False, detail=_unmeasured(gain.figure), against=gain.against)
    needed = max(gain.by, figure.noise or 0.0)
    lower = figure.better == "lower"
    return Condition(
        name=name,
        passed=figure.high < -needed if lower else figure.low > needed,
        detail=f"{figure.show(figure.base)} to {figure.show(figure.tuned)}{_unit(figure)}; {confidence:.0%} interval "
        f"of the difference {figure.interval}, needed "
        f"{'below' if lower else 'above'} {_short(figure, 0 - needed if lower else needed)}{_about_noise(figure)}",
        against=gain.against,
        figure=figure,
        needed=needed,
    )


def _kept(name: str, allowed: float, figure: Figure | None, against: str) -> Condition:
    """The figure itself, not an interval, is no worse than allowed."""
    title = f"{_title(name)} no worse than {'the base' if against == 'base' else 'production'}"
    if figure is None:
        return Condition(name=title, passed=False, detail=_unmeasured(name), against=against)
    gained = -figure.difference if figure.better == "lower" else figure.difference
    over = f" of {figure.rows} answers" if figure.rows else _unit(figure)
    return Condition(
        name=title,
        passed=gained >= -allowed,
        detail=f"{figure.show(figure.base)} to {figure.show(figure.tuned)}{over}, may be worse by "
        f"{_short(figure, allowed)}{_about_noise(figure)}",
        against=against,
        figure=figure,
        needed=0 - allowed,
    )


def _merged(merge: MergeReport) -> Iterator[Condition]:
    merge_gap, written = abs(merge.merged_loss - merge.adapter_loss), merge.written
    yield Condition(
        name="merged model is base + adapter",
        passed=merge.holds,
        detail=f"largest logit difference {merge.max_logit_difference:.4f} (bound "
        f"{merge.max_logit_difference_bound:g}), loss difference {merge_gap:.5f} (bound "
        f"{merge.max_loss_difference_bound:g})",
    )
    yield Condition(
        name="merged model is near what was evaluated",
        passed=merge.near_trained,
        detail=f"KL divergence {written.kl_divergence:.4f} nats/token (bound {merge.kl_divergence_bound:g}), loss "
        f"{written.expected_loss:.3f} to {written.loss:.3f} (allowed rise {merge.loss_rise_bound:g})",
    )


def _remembers(loss: Figure, confidence: float, bound: float) -> Condition:
    """The whole interval of the loss difference on the reference text is below the bound."""
    return Condition(
        name="little is forgotten",
        passed=loss.high <= bound,
        detail=f"reference text: {loss.base:.3f} to {loss.tuned:.3f} nats/token; {confidence:.0%} interval of the "
        f"difference {loss.low:+.3f} to {loss.high:+.3f}, allowed up to {bound:+g}",
        against="base",
        figure=loss,
        needed=0 - bound,
    )


def _title(name: str) -> str:
    """As a sentence says it: ``passes its tests`` and ``only code`` are shares of answers."""
    return name if name in ("loss", "perplexity", "repetition") or PASS_AT.fullmatch(name) else f'"{name}"'


def _unmeasured(name: str) -> str:
    return f"{name} was not measured: no row had tests that count, or no code ran"


def _unit(figure: Figure) -> str:
    return f" {figure.unit}" if figure.unit not in ("share", "") else ""


def _short(figure: Figure, value: float) -> str:
    return figure.show(value) if figure.unit == "share" else f"{value:.3g}"


def _about_noise(figure: Figure) -> str:
    return "" if figure.noise is None else f", noise {figure.shown_noise()}"
