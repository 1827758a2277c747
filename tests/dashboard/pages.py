"""Pictures of a run's report pages, light and dark, and a page that shows them all.

A page is drawn as its materializer stored it, outside of the dashboard, which has no dark mode of its own.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from steps.errors import PipelineError

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Locator, Page, ViewportSize

Mode = Literal["light", "dark"]
MODES: tuple[Mode, ...] = ("light", "dark")
WINDOW: "ViewportSize" = {"width": 960, "height": 900}
"""CSS pixels: the width of a page's text and its margins; pages that are longer are cut off there."""
MOST_BYTES = 150_000
"""A picture larger than this has no place in a README."""
INTRODUCTION = """# The pages of a run

Every report of a `make quickstart`, as the dashboard shows it and as it lies in the artifact store; `make pictures`
takes them. Longer pages are cut off here. They follow the browser's light or dark mode, as these pictures do.
"""


class PictureError(PipelineError):
    """A picture does not show what it must, or is too large."""


@dataclass(frozen=True)
class Detail:
    """A part of a page that the README shows: a picture's name, the artifact, where the part is, what it shows."""

    name: str
    artifact: str
    selector: str
    about: str


DETAILS = (
    Detail("training_curve", "training_report", "section:has(figure) >> nth=0", "training curve"),
    Detail("before_after", "evaluation_report", "section:has(.codes) >> nth=0", "one prompt, both answers"),
)


def save(png: bytes, path: Path) -> None:
    """Write a screenshot as WebP with few colours.

    Raises:
        PictureError: it has more than ``MOST_BYTES``.
    """
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).convert("RGB")
        few.save(path, lossless=True, method=6)
    if (size := path.stat().st_size) > MOST_BYTES:
        raise PictureError(f"{path} has {size:,} bytes, more than {MOST_BYTES:,}")


def picture_pages(page: "Page", pages: dict[str, str], output: Path) -> list[str]:
    """Draw each page and each detail of one in both modes, and write the overview; gives the pages' headings.

    Args:
        page: the browser's.
        pages: HTML by the artifact's name.
        output: folder of the pictures, ``NAME-light.webp`` and ``NAME-dark.webp``, and of ``README.md``.
    """
    page.set_viewport_size(WINDOW)
    headings = []
    for name, html in pages.items():
        page.set_content(html)
        headings.append(page.get_by_role("heading", level=1).inner_text())
        for mode in MODES:
            page.emulate_media(color_scheme=mode)
            page.evaluate("scrollTo(0, 0)")  # a detail was further down
            height = min(WINDOW["height"], page.evaluate("document.documentElement.scrollHeight"))
            part: FloatRect = {"x": 0, "y": 0, "width": WINDOW["width"], "height": height}
            save(page.screenshot(scale="css", clip=part), output / f"{name}-{mode}.webp")
            for detail in DETAILS:
                if detail.artifact == name:
                    save(_part(page, detail).screenshot(), output / f"{detail.name}-{mode}.webp")
    (output / "README.md").write_text(overview(zip(pages, headings, strict=True)), encoding="utf-8")
    return headings


def _part(page: "Page", detail: Detail) -> "Locator":
    part = page.locator(detail.selector)
    if not part.count():
        raise PictureError(f"the page of {detail.artifact} has no part {detail.selector}: {detail.about}")
    return part


def overview(pages: Iterable[tuple[str, str]]) -> str:
    """Markdown with all pages' pictures, from names and headings."""
    shown = (f"\n## {heading}\n\n`{name}`\n\n{element(name, heading)}\n" for name, heading in pages)
    return INTRODUCTION + "".join(shown)


def element(name: str, about: str) -> str:
    """A picture that follows the reader's mode."""
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{name}-dark.webp">'
        f'<img src="{name}-light.webp" alt="{about}"></picture>'
    )
