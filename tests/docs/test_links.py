"""Every link within the repository leads somewhere: a file, and a heading of it where one is named."""

import re

from tests.docs.documented import PAGES, ROOT

LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """Names of a page's headings as a forge makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_within_the_repository_lead_somewhere() -> None:
    wrong, seen = [], 0
    for page in (*PAGES, ROOT / "CHANGELOG.md"):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            seen += 1
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            there = file.exists() and (not anchor or anchor in anchors(file.read_text(encoding="utf-8")))
            if not there:
                wrong.append(f"{page.relative_to(ROOT)}: {target}")
    assert wrong == []
    assert seen > 40


def test_references_are_defined() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        used = set(re.findall(r"\]\[(\w+)\]", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)))
        defined = set(re.findall(r"^\[(\w+)\]: ", text, re.MULTILINE))
        assert used == defined, page.name
