"""Parameters of the split."""

from typing import Self

from pydantic import Field, model_validator

from steps.parameters import Parameters


class SplitParameters(Parameters):
    """Shares of the rows by group; what is left after validation and test is trained on."""

    validation: float = Field(default=0.05, ge=0, lt=1, description="share of the groups")
    test: float = Field(default=0.05, ge=0, lt=1, description="share of the groups")
    seed: int = Field(default=42, description="another seed gives another split")
    max_rows: int | None = Field(
        default=None, gt=0, description="use this many rows, the same ones for the same seed (a debug subset)"
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; "
                "their sum must be below 1"
            )
        return self
