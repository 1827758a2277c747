"""How long texts are, as a report keeps it: a few quantiles and a histogram."""

from bisect import bisect_right
from collections.abc import Sequence
from statistics import quantiles

from pydantic import BaseModel, ConfigDict

EDGES = (0, 50, 100, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 4000, 6000, 8000)
"""Lower edges of the histogram's bins in characters; the last bin has no upper edge."""


class Lengths(BaseModel):
    """Lengths of texts in characters; ``counts`` has one number for each bin that starts at an edge."""

    model_config = ConfigDict(extra="forbid")

    median: float
    p95: float
    longest: int
    counts: list[int]


def lengths_of(texts: Sequence[str]) -> Lengths:
    """Summary of the texts' lengths in characters; zeros where there is no text."""
    sizes = [len(text) for text in texts] or [0]
    cuts = quantiles(sizes, n=20, method="inclusive") if len(sizes) > 1 else [float(sizes[0])] * 19
    counts = [0] * len(EDGES)
    for text in texts:
        counts[bisect_right(EDGES, len(text)) - 1] += 1
    return Lengths(median=cuts[9], p95=cuts[18], longest=max(sizes), counts=counts)
