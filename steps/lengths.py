"""How long texts are, as a report keeps it: a few quantiles and a histogram."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from steps.rows import batches_of

if TYPE_CHECKING:
    from datasets import Dataset

EDGES = (0, 50, 100, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 4000, 6000, 8000)
"""Lower edges of the histogram's bins in characters; the last bin has no upper edge."""


class Lengths(BaseModel):
    """Lengths of texts in characters; ``counts`` has one number for each bin that starts at an edge."""

    model_config = ConfigDict(extra="forbid")

    median: float
    p95: float
    longest: int
    counts: list[int]


def lengths_of_column(rows: "Dataset", column: str) -> Lengths:
    """Summary of a column of texts, counted by Arrow batch by batch: four bytes of memory a row; zeros without rows."""
    import numpy as np
    import pyarrow.compute as pc

    batches = batches_of(rows.select_columns([column]))
    sizes = np.concatenate([np.zeros(0, np.int32), *(pc.utf8_length(table[column]).to_numpy() for table in batches)])
    if not len(sizes):
        return Lengths(median=0, p95=0, longest=0, counts=[0] * len(EDGES))
    median, p95 = np.quantile(sizes, [0.5, 0.95])
    counts, _ = np.histogram(sizes, bins=[*EDGES, np.inf])
    return Lengths(median=float(median), p95=float(p95), longest=int(sizes.max()), counts=counts.tolist())
