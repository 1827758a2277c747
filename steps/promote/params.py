"""Parameters of the promotion gate."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from steps.parameters import Parameters

FIGURES = ("loss", "perplexity", "stops", "parses", "only code", "runs", "passes its tests", "repetition")
"""Figures of the evaluation that have a better direction; beside them pass@k of sampled answers."""

PASS_AT = re.compile(r"pass@([1-9]\d*)")


def _known(name: str) -> str:
    if name not in FIGURES and not PASS_AT.fullmatch(name):
        raise ValueError(f"{name!r} is no figure that is better or worse ({', '.join(FIGURES)}, pass@K)")
    return name


FigureName = Annotated[str, AfterValidator(_known)]
"""A figure of the test rows."""


class Gain(Parameters):
    """A difference that must be proven: its whole interval, at the evaluation's confidence, lies beyond ``by``."""

    figure: FigureName = Field(description=f"one of {', '.join(FIGURES)}, pass@K")
    against: Literal["base", "production"] = Field(
        default="base", description="whose figure must be bettered; where none is in production, nothing is asked"
    )
    by: float = Field(
        default=0.0,
        ge=0,
        description="in the figure's unit: nats per token of a loss, 0.05 for 5 points of a share; the figure's noise "
        "where that is larger",
    )


class PromotionParameters(Parameters):
    """What a tuned model must show to be promoted; a tie does not promote."""

    stage: Literal["staging", "production"] = Field(default="staging", description="stage of the promoted version")
    gains: tuple[Gain, ...] = Field(
        default=(Gain(figure="loss"), Gain(figure="loss", against="production")),
        min_length=1,
        description="what must be better, each with the evaluation's confidence",
    )
    allowed_regressions: dict[FigureName, Annotated[float, Field(ge=0)]] = Field(
        default={"only code": 0.0},
        description="figure -> by how much, in its unit, it may be worse than base's and than production's; figures "
        "that are not named may be worse",
    )
    max_forgetting: float | None = Field(
        default=0.1,
        ge=0,
        description="nats per token by which the loss on evaluation.reference_text may rise, with the evaluation's "
        "confidence; null, or no reference text, is no condition",
    )

    @property
    def figures(self) -> dict[str, tuple[str | int, ...]]:
        """Each figure that is asked for, and the key below ``promotion`` that asks for it."""
        named: dict[str, tuple[str | int, ...]] = {
            gain.figure: ("gains", place, "figure") for place, gain in enumerate(self.gains)
        }
        return named | {name: ("allowed_regressions", name) for name in self.allowed_regressions}
