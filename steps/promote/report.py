"""The decision and what it rests on."""

from pydantic import BaseModel

from steps.evaluate.report import Figure
from steps.report import Report


class Condition(BaseModel):
    """One thing that a promoted model must show.

    Where it is about a figure, ``figure`` has that of both models, the candidate's as tuned; ``against`` is ``base`` or
    ``production``, and ``needed`` the change for the better that the figure had to come to, negative where it may be
    worse.
    """

    name: str
    passed: bool
    detail: str
    against: str = ""
    figure: Figure | None = None
    needed: float | None = None


class PromotionDecision(Report):
    """Promoted if every condition holds; ``production`` is the version that was in production then, 0 if none."""

    promoted: bool
    stage: str
    conditions: list[Condition]
    production: int = 0

    def metadata(self) -> dict[str, str | int | float | bool]:
        """The decision."""
        return {"promoted": self.promoted, "stage": self.stage if self.promoted else "none"}
