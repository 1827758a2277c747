"""Draws the validation report."""

from steps.page import COLOURS, Page, Section, Table, Tile, figure, svg
from steps.validate.report import ValidationReport


def draw(report: ValidationReport) -> Page:
    """Rules with their actions, lengths in tokens against the block, and examples of what broke a rule."""
    share = report.quarantined / max(report.rows, 1)
    above = _example_lengths_above(report)
    return Page(
        title="Validate: which rows are fit for training",
        lead="Every row was checked against every rule. Rules with action error or quarantine set a row aside with its "
        "reasons; a rule that warns keeps it.",
        tiles=[
            Tile("Rows in", f"{report.rows:,}"),
            Tile("Kept", f"{report.kept:,}", f"{1 - share:.1%}"),
            Tile("Quarantined", f"{report.quarantined:,}", f"{share:.1%}", tone="warn" if share else "good"),
            Tile("Kept with a warning", f"{report.warned:,}", tone="warn" if report.warned else "good"),
            Tile("With tests", f"{report.with_tests:,}", f"{report.with_tests / max(report.kept, 1):.1%} of the kept"),
            Tile(f"Above {report.max_length} tokens", f"{above:.1%}", "of all rows", tone="warn" if above else "good"),
        ],
        sections=[_rules(report), *_wholes(report), _lengths(report), *_examples(report)],
    )


def _example_lengths_above(report: ValidationReport) -> float:
    example = next(lengths for lengths in report.lengths if lengths.name == "example")
    return example.above / max(report.rows, 1)


def _rules(report: ValidationReport) -> Section:
    rows = [
        [
            rule.name,
            rule.action,
            "" if rule.limit is None else f"{rule.limit:.1%}",
            f"{rule.broken:,}",
            f"{rule.broken / max(report.rows, 1):.1%}",
            rule.demand,
        ]
        for rule in sorted(report.rules, key=lambda rule: -rule.broken)
    ]
    warned = [rule.name for rule in report.rules if rule.action == "warn" and rule.broken]
    text = "Rows that break each; a row may break several, so they do not add up to the quarantine. "
    text += f"Broken, and only warned: {', '.join(warned)}." if warned else "No rule that only warns was broken."
    columns = ["rule", "action", "stops above", "broken", "share", "what it demands"]
    return Section("Rules", text, table=Table(columns, rows))


def _wholes(report: ValidationReport) -> list[Section]:
    if not report.wholes:
        return []
    rows = [
        [whole.name, whole.action, "met" if whole.met else "not met", whole.observed, whole.demand]
        for whole in report.wholes
    ]
    table = Table(["rule", "action", "outcome", "observed", "what it demands"], rows)
    return [Section("Rules about all kept rows together", table=table)]


def _lengths(report: ValidationReport) -> Section:
    rows = [
        [
            lengths.name,
            f"{lengths.median:,.0f}",
            f"{lengths.p95:,.0f}",
            f"{lengths.longest:,}",
            f"{lengths.above:,}",
            f"{lengths.above / max(report.rows, 1):.1%}",
        ]
        for lengths in report.lengths
    ]
    limit = report.max_length
    columns = ["part", "median", "95 % are at most", "longest", f"above {limit}", "share"]
    text = (
        f"An example is the prompt's own {report.frame_tokens} tokens, the instruction and the completion; where these "
        f"meet, a few tokens may merge. One above {limit} does not fit a block: format sets it aside."
    )
    return Section("Lengths in tokens", text, table=Table(columns, rows), figures=[_histogram(report)])


def _histogram(report: ValidationReport) -> str:
    drawing, axes = figure()
    edges = [number * report.bin_tokens for number in range(len(report.kept_bins))]
    series = {"kept": report.kept_bins, "quarantined": report.quarantined_bins}
    below = [0] * len(edges)
    for colour, (name, counts) in zip(COLOURS, series.items(), strict=False):
        axes.bar(edges, counts, report.bin_tokens * 0.9, below, align="edge", label=name, color=colour)
        below = counts
    axes.axvline(report.max_length, color="#c0362c", linewidth=1.5, label=f"a block: {report.max_length} tokens")
    axes.set_xlabel(f"tokens of an example; the last bar holds all above {2 * report.max_length}")
    axes.set_ylabel("rows")
    axes.legend(frameon=False)
    return svg(drawing)


def _examples(report: ValidationReport) -> list[Section]:
    return [
        Section(
            f"{example.outcome.capitalize()}: {example.location}",
            "; ".join(example.reasons),
            codes=[("instruction", example.instruction), ("completion", example.completion)],
        )
        for example in sorted(report.examples, key=lambda example: example.outcome, reverse=True)
    ]
