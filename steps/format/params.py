"""Parameters of prompt, tokens and packing."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from steps.parameters import Parameters
from steps.template import MODEL, PromptTemplate, TemplateText, named_template


class PromptParameters(Parameters):
    """The prompt template, what the loss covers, and how examples fill blocks."""

    template: PromptTemplate = Field(
        default_factory=lambda: TemplateText.model_validate(named_template("notebook")),
        description="notebook, alpaca, chatml, llama2-chat, model (the base model's own), or a mapping with a prompt",
    )
    system: str | None = Field(
        default=None, description="says what the model is and must return; null takes the template's own"
    )
    max_length: int = Field(default=512, ge=16, description="tokens of a block")
    too_long: Literal["drop", "truncate_completion_keep_eos", "split"] = Field(
        default="drop",
        description="examples longer than max_length: left out, their completion cut before the end token, or "
        "cut into several; packing wrapped cuts its stream anyway",
    )
    packing: Literal["bfd", "wrapped", "none"] = Field(
        default="bfd",
        description="bfd: whole examples, best fit decreasing, isolated from each other; "
        "wrapped: one stream of tokens cut every max_length (the notebook's); none: one example a block",
    )
    loss_on: Literal["completion", "all"] = Field(
        default="completion", description="tokens that count in the loss; the notebook's is all"
    )

    @field_validator("template", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return named_template(value) if isinstance(value, str) and value != MODEL else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.system and isinstance(self.template, TemplateText) and "{system}" not in self.template.prompt:
            raise ValueError("system is set but template.prompt has no {system}; add it or remove system")
        if self.packing == "wrapped" and self.loss_on == "completion":
            raise ValueError("packing wrapped cuts completions from their prompts; use it with loss_on: all")
        if self.packing == "wrapped" and self.too_long != "drop":
            raise ValueError("too_long counts with packing bfd or none; wrapped cuts its stream anyway: remove it")
        return self
