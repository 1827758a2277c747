"""Parameters of prompt, tokens and packing."""

from typing import Literal, Self

from pydantic import Field, model_validator

from steps.parameters import Parameters

NOTEBOOK_SYSTEM = (
    "You are an AI coding assistant specialized in generating Python code from user instructions.\n"
    "Your task is to return only the code that directly fulfills the given instruction."
)


class PromptParameters(Parameters):
    """The prompt template, what the loss covers, and how examples fill blocks.

    Markers default to those of the recipe that this project started from; ``{eos}`` stands for the tokenizer's
    end-of-sequence token and ``{instruction}`` for the row's instruction.
    """

    system: str = Field(default=NOTEBOOK_SYSTEM, description="says what the model is and must return")
    template: str = Field(
        default="### INSTRUCTION:\n{system}{eos}\n\n### Input:\n{instruction}{eos}\n\n### RESPONSE:\n",
        description="text before the completion; {system}, {instruction} and {eos} are filled in",
    )
    max_length: int = Field(default=512, ge=16, description="tokens of a block; longer examples are set aside")
    packing: Literal["bfd", "wrapped", "none"] = Field(
        default="bfd",
        description="bfd: whole examples, best fit decreasing, isolated from each other; "
        "wrapped: one stream of tokens cut every max_length (the notebook's); none: one example a block",
    )
    loss_on: Literal["completion", "all"] = Field(
        default="completion", description="tokens that count in the loss; the notebook's is all"
    )

    @model_validator(mode="after")
    def _has_placeholder(self) -> Self:
        if self.template.count("{instruction}") != 1:
            raise ValueError("template must contain {instruction} exactly once")
        if "{system}" not in self.template and self.system:
            raise ValueError("system is set but template has no {system}; add it or set system to ''")
        if self.packing == "wrapped" and self.loss_on == "completion":
            raise ValueError("packing wrapped cuts completions from their prompts; use it with loss_on: all")
        return self
