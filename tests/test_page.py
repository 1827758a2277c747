"""Pages escape what they show, load nothing, and follow the reader's colours."""

import re
from html.parser import HTMLParser

from datasets import Dataset, Features, Value

from steps.lengths import EDGES, lengths_of_column
from steps.page import Page, Section, Table, Tile, bars, render
from steps.report import Report

EVIL = "<script>alert('x')</script> & \"quotes\""


def _page() -> str:
    figure = bars([str(edge) for edge in EDGES], {EVIL: range(15), "other": range(15)}, EVIL)
    section = Section(EVIL, EVIL, Table([EVIL], [[EVIL]], code=[EVIL]), [figure], [(EVIL, EVIL)])
    return render(Page(title=EVIL, lead=EVIL, tiles=[Tile(EVIL, EVIL, EVIL, tone="bad")], sections=[section]))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes.extend(attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _tags() -> _Tags:
    tags = _Tags()
    tags.feed(_page())
    return tags


def test_every_text_is_escaped() -> None:
    tags = _tags()
    assert "script" not in tags.names
    assert "".join(tags.texts).count(EVIL) == 14


def test_nothing_is_loaded_from_anywhere() -> None:
    tags = _tags()
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(tags.names)
    links = [value for name, value in tags.attributes if name in {"href", "src", "xlink:href", "action"}]
    assert all(value is not None and value.startswith("#") for value in links)
    assert not re.search(r"@import|url\((?!#)", _page())
    namespaces = [value for name, value in tags.attributes if name.startswith("xmlns")]
    assert set(re.findall(r"https?://[^\"'\s]+", _page())) <= set(namespaces)


def test_figures_have_no_black_of_their_own() -> None:
    """Black lines and text would vanish on a dark page."""
    (figure,) = re.findall(r"<svg.*?</svg>", _page(), flags=re.DOTALL)
    assert figure.startswith('<svg role="img" fill="currentColor"')
    assert not re.search(r"#000(000)?\b|\bblack\b|rgb\(0", figure)
    assert "stroke: currentColor" in figure
    assert "<text" in figure


def test_a_figure_is_the_same_each_time() -> None:
    assert bars(["a"], {"b": [1]}, "c") == bars(["a"], {"b": [1]}, "c")


def test_a_report_is_a_page_of_its_fields_by_default() -> None:
    class Two(Report):
        one: int
        text: str

    html = Two(one=1, text="<i>").html()
    assert "<title>Two</title>" in html
    assert "&lt;i&gt;" in html


def texts(*values: str) -> Dataset:
    """A data set with one column of texts."""
    return Dataset.from_dict({"text": list(values)}, features=Features({"text": Value("string")}))


def test_lengths_are_counted_in_their_bins() -> None:
    lengths = lengths_of_column(texts("", "x" * 49, "x" * 50, "x" * 9000), "text")
    assert lengths.counts == [2, 1, *[0] * 12, 1]
    assert (lengths.median, lengths.longest) == (49.5, 9000)
    assert lengths_of_column(texts(), "text").counts == [0] * len(EDGES)
