"""The page of a lineage: the steps as a picture, then every branch as a table."""

from html import escape

from steps.lineage.report import Branch, Lineage
from steps.page import Page, Section, Table, Tile

ROWS = (("resolve", "ingest", "validate", "split", "format"), ("quantize", "train", "evaluate", "merge", "promote"))
WIDTH, HEIGHT, ACROSS, DOWN = 164, 58, 180, 110
"""Of a box, and from one box to the next, in units of the drawing."""


def draw(lineage: Lineage) -> Page:
    """What is known, and what the hashes said of it."""
    states = [entry.state for branch in lineage.branches for entry in branch.entries if entry.state]
    wrong = sum(state.startswith("changed") for state in states)
    absent = states.count("not here")
    tile = Tile(
        "Hashes",
        f"{wrong} changed" if wrong else f"{len(states) - absent} verified" if states else "not checked",
        f"{absent} artifacts are not here" if absent else "" if states else "qlora lineage checks them",
        "bad" if wrong else "good" if states else "plain",
    )
    return Page(
        title=f"Lineage of {lineage.name}",
        lead="Where this model comes from, as its provenance.json says.",
        tiles=[tile],
        sections=[Section("How it was made", figures=[picture(lineage)]), *map(_section, lineage.branches)],
    )


def _section(branch: Branch) -> Section:
    shown = 3 if any(entry.state for entry in branch.entries) else 2
    rows = [[entry.name, entry.value, entry.state][:shown] for entry in branch.entries]
    return Section(branch.title.capitalize(), table=Table(["what", "value", "check"][:shown], rows, code=["value"]))


def picture(lineage: Lineage) -> str:
    """The ten steps with one fact each, as an SVG element; a step whose files changed is drawn in red."""
    states = lineage.states_of_steps()
    arrows = [
        f"M{left + WIDTH} {row * DOWN + 39} h{ACROSS - WIDTH - 3}"
        for row in range(2)
        for left in (10 + ACROSS * column for column in range(4))
    ]
    last, train = 10 + 4 * ACROSS + WIDTH / 2, 10 + ACROSS + WIDTH / 2
    arrows += [f"M{10 + WIDTH / 2} 68 V{DOWN + 7}", f"M{last} 68 v26 H{train} V{DOWN + 7}"]
    boxes = [
        _box(name, lineage.facts.get(name, ""), states.get(name, ""), 10 + ACROSS * column, 10 + DOWN * row)
        for row, names in enumerate(ROWS)
        for column, name in enumerate(names)
    ]
    paths = "".join(
        f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5" marker-end="url(#head)"/>'
        for path in arrows
    )
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs>'
    )
    size = f"0 0 {20 + 4 * ACROSS + WIDTH} {20 + DOWN + HEIGHT}"
    return (
        f'<svg role="img" aria-label="The ten steps with what each brought" viewBox="{size}" fill="currentColor" '
        f'font-family="system-ui, sans-serif" text-anchor="middle">{head}{paths}{"".join(boxes)}</svg>'
    )


def _box(name: str, fact: str, state: str, left: int, top: int) -> str:
    changed = state.startswith("changed")
    colour, width = (
        ("var(--bad)", 2.5) if changed else ("var(--good)", 1.5) if state == "verified" else ("var(--line)", 1.5)
    )
    shown = fact if len(fact) <= 26 else f"{fact[:25]}…"
    middle = left + WIDTH / 2
    return (
        f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="var(--card)" stroke="{colour}" '
        f'stroke-width="{width}"><title>{escape(state)}</title></rect>'
        f'<text x="{middle}" y="{top + 25}" font-size="15" font-weight="600">{name}</text>'
        f'<text x="{middle}" y="{top + 44}" font-size="10.5" fill="var(--soft)">{escape(shown)}</text>'
    )
