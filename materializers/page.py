"""The pages of data sets and directories: apart, since their look is no reason to run a step again."""

import os
from collections.abc import Iterator, Mapping

from datasets import Dataset
from zenml.enums import VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer

from steps.page import Page, Section, Table, Tile, render

PAGE = "page.html"
SHOWN_ROWS = 20


def save_page(materializer: BaseMaterializer, html: str) -> dict[str, VisualizationType]:
    """Store the page beside the artifact, as what the dashboard shows of it."""
    path = os.path.join(materializer.uri, PAGE)
    with materializer.artifact_store.open(path, "w") as stream:
        stream.write(html)
    return {path: VisualizationType.HTML}


def dataset_page(title: str, splits: Mapping[str, Dataset]) -> str:
    """The first rows of each split."""
    tiles = [Tile(name, f"{len(dataset):,}", "rows") for name, dataset in splits.items()]
    sections = [
        Section(
            f"{name}: first {min(SHOWN_ROWS, len(dataset))} of {len(dataset):,} rows",
            table=Table(dataset.column_names, list(_cells(dataset)), code=dataset.column_names),
        )
        for name, dataset in splits.items()
    ]
    return render(Page(title=title, tiles=tiles, sections=sections))


def directory_page(title: str, manifest: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    """The files with their sizes in bytes and their hashes."""
    rows = [[name, f"{sizes[name]:,}", digest] for name, digest in manifest.items()]
    table = Table(["file", "bytes", "SHA-256"], rows, code=["file", "SHA-256"])
    return render(Page(title=title, sections=[Section("Files", table=table)]))


def _cells(dataset: Dataset) -> Iterator[list[str]]:
    for row in dataset.select(range(min(SHOWN_ROWS, len(dataset)))):
        yield [text if len(text := str(value)) <= 300 else text[:300] + " ..." for value in row.values()]
