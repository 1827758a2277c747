"""Draws lengths of texts."""

from collections.abc import Mapping

from steps.lengths import EDGES, Lengths
from steps.page import Section, Table, bars


def lengths_section(title: str, of: str, lengths: Mapping[str, Lengths]) -> Section:
    """A table and a histogram of lengths in characters by their names; ``of`` says what the names name."""
    rows = [[name, f"{one.median:,.0f}", f"{one.p95:,.0f}", f"{one.longest:,}"] for name, one in lengths.items()]
    table = Table([of, "median", "95 % are at most", "longest"], rows)
    counts = {name: one.counts for name, one in lengths.items()}
    drawing = bars([str(edge) for edge in EDGES], counts, "characters, from this number to the next")
    return Section(title, table=table, figures=[drawing])
