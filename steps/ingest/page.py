"""Draws the ingest report."""

from steps.ingest.report import IngestReport
from steps.lengths.page import lengths_section
from steps.page import Page, Section, Table, Tile


def draw(report: IngestReport) -> Page:
    """Sources, lengths and the first unreadable rows."""
    return Page(
        title="Ingest: rows from every source",
        lead=f"{_number(report.rows, 'row')} read from {_number(len(report.sources), 'source')}.",
        tiles=[
            Tile("Rows", f"{report.rows:,}"),
            Tile(
                "Unreadable",
                f"{report.unreadable:,}",
                "set aside with their reasons",
                tone="bad" if report.unreadable else "good",
            ),
            Tile("With tests", f"{report.with_tests:,}", "doctests or assertions"),
            Tile("Median instruction", f"{report.instruction_chars.median:,.0f}", "characters"),
            Tile("Median completion", f"{report.completion_chars.median:,.0f}", "characters"),
        ],
        sections=[_flow(report), _sources(report), *_drift(report), _lengths(report), *_unreadable(report)],
    )


def _drift(report: IngestReport) -> list[Section]:
    if report.drift is None:
        return []
    drift = report.drift
    rows = [
        ["unchanged", f"{drift.unchanged:,}", ""],
        ["new", f"{drift.new:,}", ", ".join(drift.new_examples)],
        ["gone", f"{drift.gone:,}", ", ".join(drift.gone_examples)],
        ["changed", f"{drift.changed:,}", ", ".join(drift.changed_examples)],
    ]
    return [Section("Against the previous run", table=Table(["rows", "number", "the first"], rows, code=["the first"]))]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _flow(report: IngestReport) -> Section:
    columns = ["source", "records", "blank lines", "unreadable", "left out by weight", "rows"]
    rows = [
        [
            source.name,
            f"{source.records:,}",
            f"{source.blank:,}",
            f"{source.unreadable:,}",
            f"{source.left_out_by_weight:,}",
            f"{source.rows:,}",
        ]
        for source in report.sources
    ]
    text = "Every record is a row, is set aside as unreadable, is a blank line, or is left out by the weights."
    return Section("From records to rows", text, table=Table(columns, rows, code=["source"]))


def _sources(report: IngestReport) -> Section:
    columns = ["source", "kind", "exact state", "rows", "with tests", "licences"]
    rows = [
        [
            source.name,
            source.kind,
            source.state,
            f"{source.rows:,}",
            f"{source.with_tests:,}",
            ", ".join(f"{name or 'none stated'} ({count:,})" for name, count in source.licenses.items()),
        ]
        for source in report.sources
    ]
    return Section("Sources", table=Table(columns, rows, code=["source", "exact state"]))


def _lengths(report: IngestReport) -> Section:
    lengths = {"instruction": report.instruction_chars, "completion": report.completion_chars}
    return lengths_section("Lengths in characters", "text", lengths)


def _unreadable(report: IngestReport) -> list[Section]:
    if not report.unreadable_examples:
        return []
    shown = len(report.unreadable_examples)
    table = Table(["where", "reasons"], report.unreadable_examples, code=["where"])
    return [Section("Unreadable rows", f"The first {shown} of {report.unreadable:,}.", table=table)]
