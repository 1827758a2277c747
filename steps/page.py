"""Self-contained report pages: inline CSS, inline SVG, no script, light and dark, readable on a phone."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
class Piece:
    """A run of text, such as a token; ``marks`` are ``trained``, ``masked`` and ``special``."""

    text: str
    marks: str = ""
    about: str = ""  # shown where the pointer rests


@dataclass(frozen=True)
class Section:
    """A heading with any of a text, a table, figures (SVG made by :func:`svg`), blocks of code and marked text."""

    title: str
    text: str = ""
    table: Table | None = None
    figures: Sequence[str] = ()
    codes: Sequence[tuple[str, str]] = ()
    marked: Sequence[tuple[str, Sequence[Piece]]] = ()


@dataclass(frozen=True)
class Page:
    """A whole report: what it is about, its main figures, then its sections."""

    title: str
    lead: str = ""
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = ()


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


COLOURS = ("#3f83c8", "#d9822b", "#4f9d69", "#b0578d")
"""Colours of data that can be told from each other on white and on black."""


def figure(height: float = 2.6) -> tuple["Figure", "Axes"]:
    """An empty figure of this height in inches, whose lines and text follow the page's colours, light or dark."""
    drawing, (axes,) = panels([height])
    return drawing, axes


def panels(heights: Sequence[float]) -> tuple["Figure", Sequence["Axes"]]:
    """Empty axes above each other, of these heights in inches, that share the horizontal axis."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7.0, sum(heights)), layout="constrained")
    grid = drawing.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=list(heights))
    every = list(grid[:, 0])
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
    return drawing, every


def bars(labels: Sequence[str], series: Mapping[str, Sequence[int]], about: str) -> str:
    """Bars beside each other for each label, one colour a series, as an SVG element.

    Args:
        labels: names of the places on the horizontal axis.
        series: heights at these places by the name that the legend shows.
        about: name of the horizontal axis, with its unit.
    """
    from matplotlib.ticker import MaxNLocator

    drawing, axes = figure()
    width = 0.84 / len(series)
    for number, (name, heights) in enumerate(series.items()):
        places = [place + (number - (len(series) - 1) / 2) * width for place in range(len(labels))]
        axes.bar(places, heights, width, label=name, color=COLOURS[number])
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel(about)
    axes.set_ylabel("rows")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=9)
    axes.legend(frameon=False)
    return svg(drawing)


def svg(drawing: "Figure") -> str:
    """The figure as an SVG element whose black parts take the page's text colour.

    Matplotlib writes black strokes as ``#000000`` and leaves black fills out, text among them, since black is
    SVG's default; so the whole element gets the text's colour as its default fill.
    """
    from matplotlib import rc_context

    text = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with rc_context({"svg.hashsalt": "page", "svg.fonttype": "none"}):
        drawing.savefig(text, format="svg", transparent=True, metadata=nothing)
    element = text.getvalue()
    element = element[element.index("<svg") :].replace("#000000", "currentColor")
    return element.replace("<svg", '<svg role="img" fill="currentColor"', 1)
