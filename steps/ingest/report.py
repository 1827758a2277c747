"""What ingestion found, source by source."""

from pydantic import BaseModel, Field

from steps.ingest.drift import Drift
from steps.lengths import Lengths
from steps.report import Report


class IngestedSource(BaseModel):
    """One source: the state that was read, and what became of its records.

    ``records`` = ``blank`` + ``unreadable`` + ``left_out_by_weight`` + ``rows``; blank lines count as records.
    """

    name: str
    kind: str
    state: str
    records: int
    blank: int
    unreadable: int
    left_out_by_weight: int
    rows: int
    with_tests: int
    licenses: dict[str, int]  # rows by licence, the most frequent ones


class IngestReport(Report):
    """Rows read and rows set aside; lengths are in characters."""

    sources: list[IngestedSource]
    rows: int
    unreadable: int
    blank: int
    left_out_by_weight: int
    with_tests: int
    instruction_chars: Lengths
    completion_chars: Lengths
    unreadable_examples: list[tuple[str, str]]
    drift: Drift | None = Field(description="against the previous run; None in a first run")

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Row counts and median lengths."""
        return {
            **self.model_dump(include={"rows", "unreadable", "left_out_by_weight", "with_tests"}),
            "instruction_chars_median": self.instruction_chars.median,
            "completion_chars_median": self.completion_chars.median,
        }
