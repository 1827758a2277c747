"""Draws the split report."""

from steps.lengths import EDGES
from steps.page import Page, Section, Table, Tile, bars
from steps.split.report import SplitReport


def draw(report: SplitReport) -> Page:
    """Sides, where their rows come from, their lengths and the first duplicates."""
    return Page(
        title="Split: train, validation and test",
        lead="A row's side depends on the seed and its group alone: rows that are added later never move it.",
        tiles=[
            Tile("Rows in", f"{report.rows:,}"),
            Tile("Duplicates", f"{report.duplicates:,}", "removed"),
            Tile("Unused", f"{report.unused:,}", "beyond max_rows"),
            *(Tile(side.name.capitalize(), f"{side.rows:,}", "rows") for side in report.sides),
        ],
        sections=[_sides(report), _sources(report), _lengths(report), *_duplicates(report)],
    )


def _sides(report: SplitReport) -> Section:
    total = max(sum(side.groups for side in report.sides), 1)
    rows = [
        [
            side.name,
            f"{side.share:.1%}",
            f"{side.groups / total:.1%}",
            f"{side.groups:,}",
            f"{side.rows:,}",
            f"{side.with_tests:,}",
        ]
        for side in report.sides
    ]
    columns = ["side", "share asked for", "share of the groups", "groups", "rows", "with tests"]
    return Section("Sides", table=Table(columns, rows))


def _sources(report: SplitReport) -> Section:
    names = list(dict.fromkeys(name for side in report.sides for name in side.sources))
    rows = [[name, *(f"{side.sources.get(name, 0):,}" for side in report.sides)] for name in names]
    table = Table(["source", *(side.name for side in report.sides)], rows, code=["source"])
    return Section("Rows by source", table=table)


def _lengths(report: SplitReport) -> Section:
    table = Table(
        ["side", "median", "95 % are at most", "longest"],
        [
            [side.name, f"{chars.median:,.0f}", f"{chars.p95:,.0f}", f"{chars.longest:,}"]
            for side in report.sides
            for chars in (side.completion_chars,)
        ],
    )
    drawing = bars(
        [str(edge) for edge in EDGES],
        {side.name: side.completion_chars.counts for side in report.sides},
        "characters of the completion, from this number to the next",
    )
    return Section("Length of the completions in characters", table=table, figures=[drawing])


def _duplicates(report: SplitReport) -> list[Section]:
    if not report.duplicate_examples:
        return []
    rows = [[pair.location, pair.same_as] for pair in report.duplicate_examples]
    text = f"The first {len(rows)} of {report.duplicates:,}; equal apart from spaces and case."
    columns = ["removed", "says the same as"]
    return [Section("Duplicates", text, table=Table(columns, rows, code=columns))]
