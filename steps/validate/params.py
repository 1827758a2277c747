"""Parameters of the data rules."""

from typing import Self

from pydantic import Field, model_validator

from steps.parameters import Parameters


class ValidationParameters(Parameters):
    """The rules that a row must meet; a row that breaks one is quarantined with all its reasons."""

    max_instruction_chars: int = Field(default=4000, gt=0, description="characters")
    min_completion_chars: int = Field(default=1, gt=0, description="characters")
    max_completion_chars: int = Field(default=8000, gt=0, description="characters")
    completion_parses: bool = Field(default=True, description="the completion is valid Python")
    no_markdown_fence: bool = Field(default=True, description="the completion has no ``` fence")
    allowed_licenses: tuple[str, ...] = Field(default=(), description="SPDX ids; empty allows every licence")
    max_quarantine_share: float = Field(
        default=0.5, ge=0, le=1, description="largest share of quarantined rows with which the run goes on"
    )

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        if self.min_completion_chars > self.max_completion_chars:
            raise ValueError("min_completion_chars is larger than max_completion_chars")
        return self
