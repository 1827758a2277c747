"""Parameters of the data rules."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from steps.parameters import Parameters

YAML_READS_OFF_AS_FALSE = BeforeValidator(lambda value: "off" if value is False else value)
Action = Annotated[Literal["error", "quarantine", "warn", "off"], YAML_READS_OFF_AS_FALSE]

CONTROL_TOKENS = (
    "</s>",
    "[/INST]",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
)
"""What ends a turn in Llama, ChatML, GPT and Gemma chats: in a row it is left over from another model's prompt."""


class Rule(Parameters):
    """What happens to a row that breaks a rule; see :class:`ValidationParameters`."""

    action: Action = Field(default="quarantine", description="what happens to a row that breaks it")
    max_share: float = Field(
        default=0.0, ge=0, le=1, description="error only: share of the rows that may break the rule"
    )

    @model_validator(mode="after")
    def _share_is_of_an_error(self) -> Self:
        if self.max_share and self.action != "error":
            raise ValueError(f"max_share counts only with action error, not {self.action}; remove it")
        return self


class RowRule(Rule):
    """A rule for which an action may stand: ``no_stub: warn`` is short for ``no_stub: {action: warn}``."""

    @model_validator(mode="before")
    @classmethod
    def _action_alone(cls, value: Any) -> Any:
        return {"action": value} if isinstance(value, str | bool) else value


class CharacterLimits(RowRule):
    """Length of a text in characters, outer spaces not counted."""

    min: int = Field(default=1, ge=0, description="characters")
    max: int = Field(default=8000, gt=0, description="characters")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is larger than max {self.max}")
        return self


class TokenLimit(RowRule):
    """Length in tokens of the run's tokenizer."""

    action: Action = Field(default="warn", description="what happens to a row that breaks it")
    max: int | None = Field(default=None, gt=0, description="tokens; null takes parameters.prompt.max_length")


class SpecialTokens(RowRule):
    """Texts that stand for the turns of a chat: the tokenizer's special tokens, and some of other models'."""

    also: tuple[str, ...] = Field(default=CONTROL_TOKENS, description="texts beside the tokenizer's special tokens")


class AllowedLicenses(RowRule):
    """Licences of rows."""

    allowed: tuple[str, ...] = Field(default=(), description="SPDX ids; empty allows every licence and none")


class ShareWithTests(Parameters):
    """How many of the kept rows carry tests."""

    action: Annotated[Literal["error", "warn", "off"], YAML_READS_OFF_AS_FALSE] = Field(
        default="warn", description="what happens where the share is lower"
    )
    min_share: float = Field(default=0.0, ge=0, le=1, description="share of the kept rows")


class UserExpectation(Rule):
    """Any expectation of Great Expectations by name; what stands beside these keys are its arguments.

    One that judges a whole column has no bad rows: it warns or is an error, and is judged over the kept rows.
    """

    model_config = ConfigDict(extra="allow")

    expect: str = Field(description="name, such as ExpectColumnValuesToMatchRegex")
    action: Action = Field(default="warn", description="what happens to a row that breaks it")

    @property
    def arguments(self) -> dict[str, Any]:
        """The expectation's arguments by name."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        from steps.validate.expectations import build, judges_rows  # takes seconds: only where a rule is given

        build(self.expect, self.arguments)
        if not judges_rows(self.expect) and (self.action == "quarantine" or self.max_share):
            what = "max_share" if self.max_share else "action quarantine"
            raise ValueError(
                f"{what} needs bad rows, and {self.expect} judges the whole column: "
                "use action warn or error, without max_share"
            )
        return self


class ValidationParameters(Parameters):
    """The rules, each with its action, and the user's own.

    ``quarantine`` sets a row that breaks the rule aside with its reasons; ``error`` does the same and stops the run
    when more than ``max_share`` of all rows break it; ``warn`` keeps and counts the row; ``off`` does not look.
    ``no_stub: warn`` is short for ``no_stub: {action: warn}``; so with every rule of rows below.
    """

    instruction_length: CharacterLimits = Field(
        default=CharacterLimits(max=4000), description="the instruction's characters, outer spaces not counted"
    )
    completion_length: CharacterLimits = Field(
        default=CharacterLimits(), description="the completion's characters, outer spaces not counted"
    )
    instruction_tokens: TokenLimit = Field(default=TokenLimit(), description="the instruction's tokens")
    completion_tokens: TokenLimit = Field(default=TokenLimit(), description="the completion's tokens")
    example_tokens: TokenLimit = Field(default=TokenLimit(), description="tokens of prompt and completion together")
    completion_parses: RowRule = Field(default=RowRule(), description="the completion is valid Python")
    no_stub: RowRule = Field(default=RowRule(), description="the completion does more than pass, a lone word or a text")
    no_markdown_fence: RowRule = Field(default=RowRule(), description="no line of the completion starts a fence")
    no_prompt_marker: RowRule = Field(
        default=RowRule(), description="neither text has a literal line of the prompt template"
    )
    no_special_token: SpecialTokens = Field(
        default=SpecialTokens(), description="neither text has a special token of the tokenizer or of a chat"
    )
    license_allowed: AllowedLicenses = Field(default=AllowedLicenses(), description="the row's licence is allowed")
    row_is_unique: RowRule = Field(
        default=RowRule(), description="no earlier row that is kept has the same instruction and completion"
    )
    tests_share: ShareWithTests = Field(default=ShareWithTests(), description="how many of the kept rows carry tests")
    expectations: tuple[UserExpectation, ...] = ()
    max_quarantine_share: float = Field(
        default=0.5, ge=0, le=1, description="largest share of quarantined rows with which the run goes on"
    )
