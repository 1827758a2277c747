"""Prompts with both answers side by side, and how losses and lengths are spread: what figures alone do not show."""

import random
from collections.abc import Sequence

from steps.evaluate.distributions import Distribution
from steps.evaluate.report import Sample
from steps.evaluate.sandbox.verdict import Verdict
from steps.page import Section, bars

SHOWN_OF_EACH = 4
SEED = 42


def gallery(samples: Sequence[Sample]) -> list[Section]:
    """The best gains, the worst losses, and some of the others at random, each prompt once.

    What counts is the number of grades that an answer has more, or less, than the base's; between equals the loss of
    the row's own completion, in nats per token.
    """
    ranked = sorted(samples, key=_gain, reverse=True)
    gains = [one for one in ranked if _gain(one) > (0, 0.0)][:SHOWN_OF_EACH]
    losses = [one for one in reversed(ranked) if _gain(one) < (0, 0.0)][:SHOWN_OF_EACH]
    shown = {one.row_id for one in (*gains, *losses)}
    rest = [one for one in samples if one.row_id not in shown]
    at_random = random.Random(SEED).sample(rest, min(SHOWN_OF_EACH, len(rest)))  # noqa: S311 - nothing secret
    sections = [Section("Worst losses", text="None: no answer is worse than the base's.")] if not losses else []
    for title, ones in (("Best gain", gains), ("Worst loss", losses), ("At random", at_random)):
        sections += [_shown(f"{title} {number}", one) for number, one in enumerate(ones, 1)]
    return sections


def spread(distributions: Sequence[Distribution]) -> list[Section]:
    """A picture of each distribution."""
    drawings = [_drawn(one) for one in distributions]
    about = "Numbers of rows; a bin is named by its middle."
    return [Section("How losses and lengths are spread", text=about, figures=drawings)] if drawings else []


def described(verdict: Verdict | None) -> str:
    """A verdict in words, nothing where no program ran."""
    if verdict is None:
        return ""
    return f"{verdict.kind}: {verdict.detail}" if verdict.detail else verdict.kind


def _drawn(one: Distribution) -> str:
    middles = [(low + high) / 2 for low, high in zip(one.edges, one.edges[1:], strict=False)]
    return bars([f"{middle:.3g}" for middle in middles], {"base": one.base, "tuned": one.tuned}, one.name)


def _gain(sample: Sample) -> tuple[int, float]:
    grades = sum(sample.tuned_grades.values()) - sum(sample.base_grades.values())
    if sample.base_loss is None or sample.tuned_loss is None:
        return grades, 0.0
    return grades, sample.base_loss - sample.tuned_loss


def _shown(title: str, sample: Sample) -> Section:
    return Section(
        title,
        text=sample.instruction,
        codes=[
            (f"base: {_about(sample.base_grades, sample.base_verdict, sample.base_loss)}", sample.base_answer),
            (f"tuned: {_about(sample.tuned_grades, sample.tuned_verdict, sample.tuned_loss)}", sample.tuned_answer),
        ],
    )


def _about(grades: dict[str, bool], verdict: Verdict | None, loss: float | None) -> str:
    has = ", ".join(name for name, value in grades.items() if value) or "none of the grades"
    failed = f"; {described(verdict)}" if verdict is not None and verdict.kind not in ("passed", "ran") else ""
    return f"{has}{failed}" + (f"; loss of the row's own completion {loss:.3f}" if loss is not None else "")
