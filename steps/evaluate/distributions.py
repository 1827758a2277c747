"""How a value is spread over the rows, for base and tuned."""

from collections.abc import Sequence

from pydantic import BaseModel

BINS = 10


class Distribution(BaseModel):
    """Counts of rows in bins of one width; ``edges`` has one number more than each model has counts."""

    name: str
    edges: list[float]
    base: list[int]
    tuned: list[int]


def distribution(name: str, base: Sequence[float], tuned: Sequence[float]) -> Distribution:
    """Both models' values in the same :data:`BINS` bins, from the smallest value of either to the largest.

    Args:
        name: what the values are, with their unit.
        base: a value for each row, at least one.
        tuned: likewise.
    """
    import numpy as np

    edges = np.histogram_bin_edges([*base, *tuned], BINS)
    counts = [np.histogram(values, edges)[0].tolist() for values in (base, tuned)]
    return Distribution(name=name, edges=edges.tolist(), base=counts[0], tuned=counts[1])
