"""What validation found, rule by rule."""

from typing import Literal

from pydantic import BaseModel

from steps.report import Report
from steps.validate.params import Action


class RuleResult(BaseModel):
    """One rule, what it does, and how many rows broke it; ``limit`` is the share at which the run stops."""

    name: str
    demand: str
    action: Action
    limit: float | None
    broken: int


class WholeResult(BaseModel):
    """A rule about all kept rows together: whether they meet it, and what was observed."""

    name: str
    demand: str
    action: Action
    met: bool
    observed: str


class TokenLengths(BaseModel):
    """Lengths of one part of all rows in tokens, and how many exceed ``max_length``."""

    name: str
    median: float
    p95: float
    longest: int
    above: int


class RowExample(BaseModel):
    """A row that broke a rule, its texts cut for display."""

    outcome: Literal["quarantined", "kept"]
    location: str
    reasons: list[str]
    instruction: str
    completion: str


class ValidationReport(Report):
    """Rows kept and set aside: ``rows == kept + quarantined``.

    ``kept_bins`` and ``quarantined_bins`` count examples (prompt and completion) by tokens, in bins of
    ``bin_tokens``; the last one holds all longer ones.
    """

    rows: int
    kept: int
    quarantined: int
    warned: int
    with_tests: int
    rules: list[RuleResult]
    wholes: list[WholeResult]
    max_length: int
    frame_tokens: int
    lengths: list[TokenLengths]
    bin_tokens: float
    kept_bins: list[int]
    quarantined_bins: list[int]
    examples: list[RowExample]

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Row counts, and how many rows broke each rule."""
        counts = self.model_dump(include={"rows", "kept", "quarantined", "warned", "with_tests"})
        return counts | {f"broken_{rule.name}": rule.broken for rule in self.rules}
