"""The decision and what it rests on."""

from pydantic import BaseModel

from steps.report import Report


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
