"""How the rows were divided."""

from pydantic import BaseModel, ConfigDict

from steps.lengths import Lengths
from steps.report import Report


class SplitSide(BaseModel):
    """One side: the share of the groups that was asked for, and what it got."""

    model_config = ConfigDict(extra="forbid")

    name: str
    share: float
    rows: int
    groups: int
    with_tests: int
    sources: dict[str, int]
    completion_chars: Lengths


class Duplicate(BaseModel):
    """A removed row and the row that it repeats."""

    model_config = ConfigDict(extra="forbid")

    location: str
    same_as: str


class SplitReport(Report):
    """``rows`` came in: duplicates were removed, ``unused`` are beyond ``max_rows``, the rest is divided."""

    rows: int
    duplicates: int
    unused: int
    sides: list[SplitSide]
    duplicate_examples: list[Duplicate]

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Row counts."""
        counts: dict[str, str | int | float | bool] = {
            "rows": self.rows,
            "duplicates": self.duplicates,
            "unused": self.unused,
        }
        return counts | {f"{side.name}_rows": side.rows for side in self.sides}
