"""Self-contained report pages: inline CSS, inline SVG, no script, light and dark, readable on a phone."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Tone = Literal["plain", "good", "bad", "warn"]


@dataclass(frozen=True)
class Tile:
    """One figure that the reader should see first."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """Rows of text under column names; columns named in ``code`` are shown in a fixed-width font."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    code: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A heading with any of a text, a table, figures (SVG made by :func:`svg`) and blocks of code."""

    title: str
    text: str = ""
    table: Table | None = None
    figures: Sequence[str] = ()
    codes: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """A whole report: what it is about, its main figures, then its sections."""

    title: str
    lead: str = ""
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = field(default_factory=list)


def render(page: Page) -> str:
    """The page as one HTML document (Jinja2, every value escaped)."""
    return _template().render(page=page)


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def figure(width: float = 7.0, height: float = 2.6) -> tuple["Figure", "Axes"]:
    """An empty figure, in inches, whose lines and text follow the page's colours, light or dark."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return drawing, axes


def svg(drawing: "Figure") -> str:
    """The figure as an SVG element whose black parts take the page's text colour."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "page", "svg.fonttype": "none", "font.family": "sans-serif"}):
        drawing.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    element = element[element.index("<svg") :]
    return element.replace("#000000", "currentColor").replace("fill: #262626", "fill: currentColor")
