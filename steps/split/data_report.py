"""What the data is, on one page: from the first record to train, validation and test."""

from dataclasses import replace

from steps.ingest.report import IngestReport
from steps.page import Page, Section, Table, Tile
from steps.report import Report
from steps.split.report import SplitReport
from steps.validate.report import ValidationReport


class DataReport(Report):
    """The reports of the three data rooms together."""

    ingest: IngestReport
    validation: ValidationReport
    split: SplitReport

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Rows by what became of them."""
        return {name.replace(" ", "_"): count for name, count in self.flow()}

    def flow(self) -> list[tuple[str, int]]:
        """What became of every record; the counts after the first one add up to it."""
        return [
            ("records", sum(source.records for source in self.ingest.sources)),
            ("blank lines", self.ingest.blank),
            ("unreadable", self.ingest.unreadable),
            ("left out by weight", self.ingest.left_out_by_weight),
            ("quarantined", self.validation.quarantined),
            ("duplicates", self.split.duplicates),
            ("near duplicates", self.split.near_duplicates),
            ("beyond max_rows", self.split.unused),
            ("contaminated", self.split.contaminated_removed),
            *((side.name, side.rows) for side in self.split.sides),
        ]

    def page(self) -> Page:
        """The flow of the counts, then the sections of each room's page."""
        (_, records), *parts = self.flow()
        rows = [[name, f"{count:,}", f"{count / max(records, 1):.1%}"] for name, count in parts]
        sides = {side.name for side in self.split.sides}
        rooms = (("Ingest", self.ingest), ("Validate", self.validation), ("Split", self.split))
        return Page(
            title="The data",
            lead=f"What became of {records:,} records.",
            tiles=[Tile(name, f"{count:,}", "rows") for name, count in parts if count or name in sides],
            sections=[
                Section("From records to splits", table=Table(["what became of them", "records", "share"], rows)),
                *(
                    replace(section, title=f"{room}: {section.title}")
                    for room, report in rooms
                    for section in report.page().sections
                ),
            ],
        )
