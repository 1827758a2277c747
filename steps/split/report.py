"""How the rows were divided, and which were removed."""

from pydantic import BaseModel

from steps.lengths import Lengths
from steps.report import Report


class SplitSide(BaseModel):
    """One side: the share of the groups (below 1) or count of rows that was asked for, and what it got."""

    name: str
    asked: float | None
    """None for what is left beside a count."""
    rows: int
    groups: int
    with_tests: int
    sources: dict[str, int]
    licenses: dict[str, int]
    completion_chars: Lengths


class Duplicate(BaseModel):
    """A removed row and the row that it repeats."""

    location: str
    same_as: str


class NearDuplicate(BaseModel):
    """A removed row and the row that stands for both."""

    row_id: str
    location: str
    kept_row_id: str
    kept_location: str
    similarity: float


class Example(BaseModel):
    """The texts of a near-duplicate and of the row that was kept."""

    location: str
    text: str
    kept_location: str
    kept_text: str
    similarity: float


class ComparedSet(BaseModel):
    """An evaluation set: its items, training rows that share an n-gram with it, and those that hold too much of it."""

    name: str
    items: int
    sharing: int
    contaminated: int


class Contaminated(BaseModel):
    """A training row and the question or answer of the evaluation item of which it holds most."""

    row_id: str
    location: str
    evaluation_set: str
    item: str
    part: str
    share: float
    text: str
    """The longest run of words that both have."""
    removed: bool


class SplitReport(Report):
    """``rows`` came in: each is a duplicate, a near-duplicate, beyond ``max_rows``, contaminated and removed, or used.

    ``unused`` are those beyond ``max_rows``; the used ones are on the sides.
    """

    rows: int
    duplicates: int
    near_duplicates: int
    unused: int
    contaminated: int
    contaminated_removed: int
    threshold: float | None
    ngram: int
    max_share: float
    sides: list[SplitSide]
    duplicate_examples: list[Duplicate]
    near_duplicate_list: list[NearDuplicate]
    near_duplicate_examples: list[Example]
    compared_sets: list[ComparedSet]
    contamination: list[Contaminated]

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Row counts."""
        named = {"rows", "duplicates", "near_duplicates", "unused", "contaminated", "contaminated_removed"}
        return self.model_dump(include=named) | {f"{side.name}_rows": side.rows for side in self.sides}
