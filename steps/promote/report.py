"""The decision and what it rests on."""

from typing import TYPE_CHECKING

from pydantic import BaseModel

from steps.report import Report

if TYPE_CHECKING:
    from steps.page import Page


class Condition(BaseModel):
    """One thing that a promoted model must show."""

    name: str
    passed: bool
    detail: str


class PromotionDecision(Report):
    """Promoted if every condition holds."""

    promoted: bool
    stage: str
    conditions: list[Condition]

    def metadata(self) -> dict[str, str | int | float | bool]:
        """The decision."""
        return {"promoted": self.promoted, "stage": self.stage if self.promoted else "none"}

    def page(self) -> "Page":
        """The report as a page."""
        from steps.promote.page import draw

        return draw(self)
