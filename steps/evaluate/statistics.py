"""Figures of two models on the same rows, with an interval of their difference."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from steps.evaluate.losses import RowLoss
from steps.evaluate.report import Figure

RESAMPLES = 10_000
SEED = 42


def compare_losses(base: Sequence[RowLoss], tuned: Sequence[RowLoss], confidence: float) -> list[Figure]:
    """Loss (nats per completion token) and perplexity (its exponential); intervals by paired bootstrap over rows."""
    tokens = np.array([row.tokens for row in base], dtype=float)
    base_nats = np.array([row.nats for row in base])
    tuned_nats = np.array([row.nats for row in tuned])

    def loss_difference(base: Any, tuned: Any, tokens: Any, axis: int = -1) -> Any:
        return (tuned - base).sum(axis) / tokens.sum(axis)

    def perplexity_difference(base: Any, tuned: Any, tokens: Any, axis: int = -1) -> Any:
        total = tokens.sum(axis)
        return np.exp(tuned.sum(axis) / total) - np.exp(base.sum(axis) / total)

    samples = (base_nats, tuned_nats, tokens)
    base_loss, tuned_loss = base_nats.sum() / tokens.sum(), tuned_nats.sum() / tokens.sum()
    return [
        _figure(
            "loss",
            base_loss,
            tuned_loss,
            _interval(samples, loss_difference, confidence),
            "nats/token",
            "lower",
        ),
        _figure(
            "perplexity",
            math.exp(base_loss),
            math.exp(tuned_loss),
            _interval(samples, perplexity_difference, confidence),
            "",
            "lower",
        ),
    ]


def compare_shares(name: str, base: Sequence[bool], tuned: Sequence[bool], confidence: float) -> Figure:
    """Share of answers with a grade; interval of the difference by paired bootstrap over prompts."""
    figure = compare_means(name, base, tuned, confidence, "share", "higher")
    own = [_wilson(sum(side), len(side), confidence) for side in (base, tuned)]
    return figure.model_copy(update={"rows": len(base), "base_interval": own[0], "tuned_interval": own[1]})


def compare_means(
    name: str,
    base: Sequence[float],
    tuned: Sequence[float],
    confidence: float,
    unit: str,
    better: Literal["lower", "higher", "neither"],
) -> Figure:
    """Mean of a value that each answer or prompt has; interval of the difference by paired bootstrap over them."""
    samples = (np.array(base, dtype=float), np.array(tuned, dtype=float))
    interval = _interval(samples, _mean_difference, confidence)
    return _figure(name, samples[0].mean(), samples[1].mean(), interval, unit, better)


def compare_passes(
    base: Sequence[int], tuned: Sequence[int], samples: int, pass_at: Sequence[int], confidence: float
) -> list[Figure]:
    """pass@k of sampled answers for each k; each model's interval, too, is by bootstrap over prompts.

    Args:
        base: for each prompt, how many of its answers pass.
        tuned: the other model's, of the same prompts.
        samples: answers to each prompt.
        pass_at: each k.
        confidence: of the intervals.
    """
    figures = []
    for k in pass_at:
        one, other = ([pass_at_k(samples, passed, k) for passed in side] for side in (base, tuned))
        figure = compare_means(f"pass@{k} (sampled)", one, other, confidence, "share", "higher")
        if len(base) > 1:
            own = [_interval((np.array(side),), np.mean, confidence) for side in (one, other)]
            figure = figure.model_copy(update={"base_interval": own[0], "tuned_interval": own[1]})
        figures.append(figure)
    return figures


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Chance that one of ``k`` answers passes, estimated without bias from ``samples`` answers to one prompt.

    1 - C(samples - passed, k) / C(samples, k), as in "Evaluating Large Language Models Trained on Code" (Chen et al.
    2021, arXiv:2107.03374, equation 1). A rate over prompts is the mean of theirs.

    Raises:
        ValueError: fewer samples than ``k``, more passed than there are, or a count below its least.
    """
    if not (1 <= k <= samples and 0 <= passed <= samples):
        raise ValueError(f"pass@{k} of {samples} samples, {passed} passed: needs 1 <= k <= samples >= passed >= 0")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)


def _mean_difference(base: Any, tuned: Any, axis: int = -1) -> Any:
    return (tuned - base).mean(axis)


def _wilson(count: int, rows: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share (scipy.stats.binomtest)."""
    from scipy.stats import binomtest

    interval = binomtest(count, rows).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _interval(samples: tuple[Any, ...], statistic: Any, confidence: float) -> tuple[float, float]:
    """Percentile bootstrap (scipy.stats.bootstrap); one row alone says nothing, so its interval is everything."""
    from scipy.stats import bootstrap

    if len(samples[0]) < 2:
        return -math.inf, math.inf
    result = bootstrap(
        samples,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _figure(
    name: str,
    base: float,
    tuned: float,
    interval: tuple[float, float],
    unit: str,
    better: Literal["lower", "higher", "neither"],
) -> Figure:
    return Figure(
        name=name,
        base=float(base),
        tuned=float(tuned),
        difference=float(tuned - base),
        low=interval[0],
        high=interval[1],
        unit=unit,
        better=better,
    )
