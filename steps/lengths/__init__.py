"""How long texts are, as a report keeps it: a few quantiles and a histogram."""

from typing import TYPE_CHECKING

from pydantic import BaseModel

from steps.rows import batches_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from datasets import Dataset

EDGES = (0, 50, 100, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 4000, 6000, 8000)
"""Lower edges of the histogram's bins in characters; the last bin has no upper edge."""


class Lengths(BaseModel):
    """Lengths of texts in characters or tokens; ``counts`` has one number for each bin of the histogram."""

    median: float
    p95: float
    longest: int
    counts: list[int]


def lengths_of(sizes: "npt.NDArray[np.integer]", edges: "npt.ArrayLike") -> Lengths:
    """Summary of these lengths, zeros where there is none; ``edges`` are those of the bins, the last one's end too."""
    import numpy as np

    median, p95 = np.quantile(sizes, [0.5, 0.95]) if len(sizes) else (0, 0)
    counts, _ = np.histogram(sizes, edges)
    return Lengths(median=float(median), p95=float(p95), longest=int(sizes.max(initial=0)), counts=counts.tolist())


def lengths_of_column(rows: "Dataset", column: str) -> Lengths:
    """Summary of a column of texts in characters, counted by Arrow batch by batch: four bytes of memory a row."""
    import numpy as np
    import pyarrow.compute as pc

    batches = batches_of(rows.select_columns([column]))
    sizes = [pc.utf8_length(table[column]).to_numpy() for table in batches]
    return lengths_of(np.concatenate([np.zeros(0, np.int32), *sizes]), [*EDGES, np.inf])
