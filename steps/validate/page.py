"""Draws the validation report."""

from steps.lengths import EDGES
from steps.page import Page, Section, Table, Tile, bars
from steps.validate.report import ValidationReport


def draw(report: ValidationReport) -> Page:
    """Rules, lengths and examples of the quarantine."""
    share = report.quarantined / max(report.rows, 1)
    return Page(
        title="Validate: which rows are fit for training",
        lead="Every row was checked against every rule; those that broke one are quarantined with reasons.",
        tiles=[
            Tile("Rows in", f"{report.rows:,}"),
            Tile("Kept", f"{report.kept:,}", f"{1 - share:.1%}"),
            Tile("Quarantined", f"{report.quarantined:,}", f"{share:.1%}", tone="warn" if share else "good"),
        ],
        sections=[_rules(report), _lengths(report), *_examples(report)],
    )


def _rules(report: ValidationReport) -> Section:
    rows = [
        [rule.name, rule.demand, f"{rule.broken:,}", f"{rule.broken / max(report.rows, 1):.1%}"]
        for rule in sorted(report.rules, key=lambda rule: -rule.broken)
    ]
    table = Table(["rule", "what it demands", "rows that break it", "share"], rows, code=["rule"])
    return Section("Rules", "A row may break several, so these do not add up to the quarantine.", table=table)


def _lengths(report: ValidationReport) -> Section:
    series = {"kept": report.kept_completion_chars.counts}
    if report.quarantined:
        series["quarantined"] = report.quarantined_completion_chars.counts
    drawing = bars([str(edge) for edge in EDGES], series, "characters of the completion, from this number to the next")
    return Section("Length of the completions", figures=[drawing])


def _examples(report: ValidationReport) -> list[Section]:
    return [
        Section(
            f"Quarantined: {example.location}",
            "; ".join(example.reasons),
            codes=[("instruction", example.instruction), ("completion", example.completion)],
        )
        for example in report.examples
    ]
