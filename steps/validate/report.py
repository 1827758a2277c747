"""What validation found, rule by rule."""

from pydantic import BaseModel, ConfigDict

from steps.lengths import Lengths
from steps.report import Report


class RuleResult(BaseModel):
    """One rule and how many rows broke it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    demand: str
    broken: int


class QuarantinedExample(BaseModel):
    """A quarantined row, its texts cut for display."""

    model_config = ConfigDict(extra="forbid")

    location: str
    reasons: list[str]
    instruction: str
    completion: str


class ValidationReport(Report):
    """Rows kept and set aside: ``rows == kept + quarantined``; lengths are in characters."""

    rows: int
    kept: int
    quarantined: int
    rules: list[RuleResult]
    kept_completion_chars: Lengths
    quarantined_completion_chars: Lengths
    examples: list[QuarantinedExample]

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Row counts, and how many rows broke each rule."""
        counts: dict[str, str | int | float | bool] = {
            "rows": self.rows,
            "kept": self.kept,
            "quarantined": self.quarantined,
        }
        return counts | {f"broken_{rule.name}": rule.broken for rule in self.rules}
