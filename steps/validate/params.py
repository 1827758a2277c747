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
    """What happens to a row that breaks a rule.

    ``quarantine`` sets it aside with its reasons; ``error`` does the same and stops the run when more than
    ``max_share`` of all rows break the rule; ``warn`` keeps and counts it; ``off`` does not look.
    """

    action: Action = Field(default="quarantine", description="error, quarantine, warn or off")
    max_share: float = Field(
        default=0.0, ge=0, le=1, description="error only: share of the rows that may break the rule"
    )

    @model_validator(mode="after")
    def _share_is_of_an_error(self) -> Self:
        if self.max_share and self.action != "error":
            raise ValueError(f"max_share counts only with action error, not {self.action}; remove it")
        return self


class RowRule(Rule):
    """A rule without numbers; ``no_markdown_fence: warn`` is short for ``{action: warn}``, here and below."""

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

    action: Action = Field(default="warn", description="error, quarantine, warn or off")
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
        default="warn", description="error, warn or off"
    )
    min_share: float = Field(default=0.0, ge=0, le=1, description="share of the kept rows")


class UserExpectation(Rule):
    """Any expectation of Great Expectations by name; what stands beside these keys are its arguments.

    One that judges a whole column has no bad rows: it warns or is an error, and is judged over the kept rows.
    """

    model_config = ConfigDict(extra="allow")

    expect: str = Field(description="name, such as ExpectColumnValuesToMatchRegex")
    action: Action = Field(default="warn", description="error, quarantine, warn or off")

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
    """The rules, each with its action, and the user's own."""

    instruction_length: CharacterLimits = CharacterLimits(max=4000)
    completion_length: CharacterLimits = CharacterLimits()
    instruction_tokens: TokenLimit = TokenLimit()
    completion_tokens: TokenLimit = TokenLimit()
    example_tokens: TokenLimit = TokenLimit()
    completion_parses: RowRule = RowRule()
    no_stub: RowRule = RowRule()
    no_markdown_fence: RowRule = RowRule()
    no_prompt_marker: RowRule = RowRule()
    no_special_token: SpecialTokens = SpecialTokens()
    license_allowed: AllowedLicenses = AllowedLicenses()
    row_is_unique: RowRule = RowRule()
    tests_share: ShareWithTests = ShareWithTests()
    expectations: tuple[UserExpectation, ...] = ()
    max_quarantine_share: float = Field(
        default=0.5, ge=0, le=1, description="largest share of quarantined rows with which the run goes on"
    )
