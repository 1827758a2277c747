"""Draws the split report."""

from collections.abc import Mapping

from steps.lengths.page import lengths_section
from steps.page import Page, Section, Table, Tile
from steps.split.report import SplitReport, SplitSide


def draw(report: SplitReport) -> Page:
    """What became of the rows, then duplicates, near-duplicates and contaminated rows, then the sides."""
    return Page(
        title="Split: train, validation and test",
        lead="A row's side depends on the seed and its group: with shares, rows that are added later never move it.",
        tiles=[
            Tile("Rows in", f"{report.rows:,}"),
            Tile("Duplicates", f"{report.duplicates:,}", "removed"),
            Tile("Near-duplicates", f"{report.near_duplicates:,}", "removed"),
            Tile(
                "Contaminated",
                f"{report.contaminated:,}",
                "removed from train" if report.contaminated_removed else "training rows",
                "bad" if report.contaminated > report.contaminated_removed else "plain",
            ),
            Tile("Unused", f"{report.unused:,}", "beyond max_rows"),
            *(Tile(side.name.capitalize(), f"{side.rows:,}", "rows") for side in report.sides),
        ],
        sections=[
            _flow(report),
            _sides(report),
            *_duplicates(report),
            *_near_duplicates(report),
            *_contamination(report),
            _by("source", {side.name: side.sources for side in report.sides}),
            _by("licence", {side.name: side.licenses for side in report.sides}),
            _lengths(report),
        ],
    )


def _flow(report: SplitReport) -> Section:
    ways = [
        ("rows in", report.rows, ""),
        ("says the same as an earlier row, apart from spaces and case", report.duplicates, "-"),
        (_threshold(report), report.near_duplicates, "-"),
        ("beyond max_rows", report.unused, "-"),
        ("removed from train for what it holds of an evaluation item", report.contaminated_removed, "-"),
        *((side.name, side.rows, "=") for side in report.sides),
    ]
    rows = [[name, f"{sign} {count:,}".strip(), f"{count / max(report.rows, 1):.1%}"] for name, count, sign in ways]
    return Section("What became of the rows", table=Table(["", "rows", "share"], rows))


def _threshold(report: SplitReport) -> str:
    if report.threshold is None:
        return "near-duplicate (not looked for)"
    return f"near-duplicate, similarity {report.threshold:g} or more"


def _sides(report: SplitReport) -> Section:
    total = max(sum(side.groups for side in report.sides), 1)
    rows = [
        [
            side.name,
            _asked(side),
            f"{side.groups / total:.1%}",
            f"{side.groups:,}",
            f"{side.rows:,}",
            f"{side.with_tests:,}",
        ]
        for side in report.sides
    ]
    columns = ["side", "asked for", "share of the groups", "groups", "rows", "with tests"]
    return Section("Sides", table=Table(columns, rows))


def _asked(side: SplitSide) -> str:
    if side.asked is None:
        return "the rest"
    return f"{side.asked:.1%}" if side.asked < 1 else f"{side.asked:,.0f} rows"


def _by(what: str, counts: Mapping[str, Mapping[str, int]]) -> Section:
    names = dict.fromkeys(name for side in counts.values() for name in side)
    rows = [[name or "not stated", *(f"{side.get(name, 0):,}" for side in counts.values())] for name in names]
    return Section(f"Rows by {what}", table=Table([what, *counts], rows, code=["source"]))


def _lengths(report: SplitReport) -> Section:
    lengths = {side.name: side.completion_chars for side in report.sides}
    return lengths_section("Length of the completions in characters", "side", lengths)


def _duplicates(report: SplitReport) -> list[Section]:
    if not report.duplicate_examples:
        return []
    rows = [[pair.location, pair.same_as] for pair in report.duplicate_examples]
    text = f"The first {len(rows)} of {report.duplicates:,}; equal apart from spaces and case."
    columns = ["removed", "says the same as"]
    return [Section("Duplicates", text, table=Table(columns, rows, code=columns))]


def _near_duplicates(report: SplitReport) -> list[Section]:
    if not report.near_duplicate_list:
        return []
    rows = [
        [one.location, one.row_id, one.kept_location, one.kept_row_id, f"{one.similarity:.3f}"]
        for one in report.near_duplicate_list
    ]
    columns = ["removed", "row", "kept", "kept row", "similarity"]
    text = (
        f"The first {len(rows)} of {report.near_duplicates:,}. Similarity is the share of word pairs that two texts "
        "have in common, the lower one of instruction and completion; the row with tests is kept, else the first."
    )
    codes = [
        code
        for pair in report.near_duplicate_examples
        for code in (
            (f"kept: {pair.kept_location}", pair.kept_text),
            (f"removed: {pair.location}, similarity {pair.similarity:.3f}", pair.text),
        )
    ]
    return [
        Section("Near-duplicates", text, table=Table(columns, rows, code=columns[:4])),
        Section("Near-duplicates that are least alike", codes=codes),
    ]


def _contamination(report: SplitReport) -> list[Section]:
    columns = ["evaluation set", "items", "training rows that share an n-gram", "above the bound"]
    sets = [[one.name, f"{one.items:,}", f"{one.sharing:,}", f"{one.contaminated:,}"] for one in report.compared_sets]
    text = (
        f"A training row is contaminated if it holds more than {report.max_share:.0%} of the {report.ngram}-grams of "
        "words of an evaluation item's question or answer."
    )
    summary = Section("Contamination", text, table=Table(columns, sets, code=columns[:1]))
    if not report.contamination:
        return [summary]
    rows = [
        [one.location, one.item, one.part, f"{one.share:.0%}", "yes" if one.removed else "no", one.text]
        for one in report.contamination
    ]
    columns = ["training row", "evaluation item", "part", "share", "removed", "longest text in common"]
    total = sum(one.sharing for one in report.compared_sets)
    text = f"The {len(rows)} of {total:,} rows that hold most; each with the item of which it holds most."
    table = Table(columns, rows, code=["training row", "evaluation item", "longest text in common"])
    return [summary, Section("Training rows that share text with evaluation items", text, table=table)]
