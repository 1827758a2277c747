"""The data rules as Great Expectations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.validate.expectations import build, columns_of, judges_rows
from steps.validate.params import Action, CharacterLimits, Rule, TokenLimit, UserExpectation, ValidationParameters
from steps.validate.prompt import Prompt

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

Detail = Callable[[Mapping[str, object]], str]


@dataclass(frozen=True)
class JudgedRule:
    """One rule: its name, what it demands and does, the expectation that judges it, and what a bad row is told."""

    name: str
    demand: str
    action: Action
    max_share: float
    expectation: "Expectation"
    detail: Detail
    columns: tuple[str, ...] = ()
    """Columns that are judged as a whole, where the rule does not judge each row by itself."""

    @property
    def sets_aside(self) -> bool:
        """Whether a row that breaks it goes to quarantine."""
        return self.action in ("error", "quarantine")


def row_rules(validation: ValidationParameters, prompt: Prompt) -> list[JudgedRule]:
    """The rules that look at one row alone and are not off, the user's last."""
    tokens = dict.fromkeys((*prompt.special_tokens, *validation.no_special_token.also))
    rules = [
        _characters("instruction", validation.instruction_length),
        _characters("completion", validation.completion_length),
        _tokens("instruction_tokens", "the instruction", validation.instruction_tokens, prompt),
        _tokens("completion_tokens", "the completion", validation.completion_tokens, prompt),
        _tokens("example_tokens", "prompt and completion together", validation.example_tokens, prompt),
        _nothing("completion_parses", "the completion is valid Python", validation.completion_parses, "syntax_error"),
        _nothing("no_stub", "the completion does more than pass, a lone word or a text", validation.no_stub, "stub"),
        _nothing(
            "no_markdown_fence",
            "no line of the completion starts with a ``` fence",
            validation.no_markdown_fence,
            "fence",
        ),
        _nothing(
            "no_prompt_marker",
            f"neither text has a marker of the prompt ({', '.join(prompt.markers) or 'it has none'})",
            validation.no_prompt_marker,
            "marker",
        ),
        _nothing(
            "no_special_token",
            f"neither text has a special token of the tokenizer or of a chat ({' '.join(tokens)})",
            validation.no_special_token,
            "special_token",
        ),
        *_licenses(validation),
        *(_users(i, one) for i, one in enumerate(validation.expectations) if judges_rows(one.expect)),
    ]
    return [rule for rule in rules if rule.action != "off"]


def unique_rule(validation: ValidationParameters) -> JudgedRule:
    """The rule that compares rows: of rows with equal texts the first that is kept stays."""
    demand = "no earlier row that is kept has the same instruction and completion"
    return _nothing("row_is_unique", demand, validation.row_is_unique, "same_as")


def whole_rules(validation: ValidationParameters) -> list[JudgedRule]:
    """The user's rules about whole columns that are not off."""
    rules = [_users(i, one) for i, one in enumerate(validation.expectations) if not judges_rows(one.expect)]
    return [rule for rule in rules if rule.action != "off"]


def _rule(name: str, demand: str, rule: Rule, expectation: "Expectation", detail: Detail) -> JudgedRule:
    return JudgedRule(name, demand, rule.action, rule.max_share, expectation, detail)


def _between(column: str, low: int, high: int) -> "Expectation":
    from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween

    return ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def _in_set(column: str, values: list[str]) -> "Expectation":
    from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet

    return ExpectColumnValuesToBeInSet(column=column, value_set=values)


def _characters(text: str, limits: CharacterLimits) -> JudgedRule:
    demand = f"the {text} has {limits.min} to {limits.max} characters without outer spaces"
    column = f"{text}_chars"
    expectation = _between(column, limits.min, limits.max)
    return _rule(f"{text}_length", demand, limits, expectation, lambda row: f"{row[column]} characters")


def _tokens(name: str, what: str, limit: TokenLimit, prompt: Prompt) -> JudgedRule:
    most = limit.max or prompt.max_length
    expectation = _between(name, 0, most)
    return _rule(name, f"{what}: at most {most} tokens", limit, expectation, lambda row: f"{row[name]} tokens")


def _nothing(name: str, demand: str, rule: Rule, column: str) -> JudgedRule:
    """A rule whose column says what is wrong, "" where nothing is."""
    return _rule(name, demand, rule, _in_set(column, [""]), lambda row: str(row[column]))


def _licenses(validation: ValidationParameters) -> list[JudgedRule]:
    rule = validation.license_allowed
    if not rule.allowed:
        return []
    demand = f"the licence is one of {', '.join(rule.allowed)}"
    expectation = _in_set("license", list(rule.allowed))
    return [
        _rule("license_allowed", demand, rule, expectation, lambda row: str(row["license"] or "the source states none"))
    ]


def _users(index: int, one: UserExpectation) -> JudgedRule:
    said = f"{one.expect} {', '.join(f'{name}={value!r}' for name, value in one.arguments.items())}"
    whole = () if judges_rows(one.expect) else tuple(columns_of(one.arguments)) or ("row_id",)
    return JudgedRule(
        f"expectations[{index}]",
        said,
        one.action,
        one.max_share,
        build(one.expect, one.arguments),
        lambda row: f"not as {said} demands",
        whole,
    )
