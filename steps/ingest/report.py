"""What ingestion found, source by source."""

from pydantic import BaseModel, ConfigDict

from steps.lengths import Lengths
from steps.report import Report


class IngestedSource(BaseModel):
    """One source: the state that was read, and how many rows it gave."""

    model_config = ConfigDict(extra="forbid")

    name: str
    kind: str
    state: str
    rows: int
    unreadable: int
    with_tests: int
    licenses: dict[str, int]


class IngestReport(Report):
    """Rows read and rows set aside; lengths are in characters."""

    sources: list[IngestedSource]
    rows: int
    unreadable: int
    with_tests: int
    instruction_chars: Lengths
    completion_chars: Lengths
    unreadable_examples: list[tuple[str, str]]

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Row counts and median lengths."""
        return {
            "rows": self.rows,
            "unreadable": self.unreadable,
            "with_tests": self.with_tests,
            "instruction_chars_median": self.instruction_chars.median,
            "completion_chars_median": self.completion_chars.median,
        }
