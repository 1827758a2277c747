"""What a prompt template says: the named ones, which are YAML files, and a user's own."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Discriminator, Field, Tag, model_validator

from steps.parameters import Parameters

MODEL = "model"
"""Name of the base model's own chat template."""

FOLDER = Path(__file__).parent / "templates"

PLACEHOLDER = re.compile(r"\{(system|instruction|completion|bos|eos)\}")
"""What a template fills in; ``{bos}`` and ``{eos}`` are the tokenizer's begin and end tokens."""


class TemplateText(Parameters):
    """A prompt template; other braces than those of a placeholder are ordinary text.

    A sequence starts with the tokenizer's begin token, where it has one, and an answer ends with ``{eos}``: neither is
    ever the characters of a token that the tokenizer does not have.
    """

    name: str = Field(default="own", description="how reports call it")
    system: str = Field(default="", description="system text where parameters.prompt.system gives none")
    system_frame: str = Field(default="{system}", description="around the system text; left out where that is empty")
    prompt: str = Field(description="before the completion; {instruction}, and {system} for the framed system text")
    next_prompt: str | None = Field(
        default=None, description="before the answer of a later turn; null is prompt without {system}"
    )
    completion: str = Field(default="{completion}{eos}", description="the answer and what ends it, {eos} last")

    @model_validator(mode="after")
    def _has_its_placeholders(self) -> Self:
        if self.prompt.count("{instruction}") != 1:
            raise ValueError("prompt must contain {instruction} exactly once")
        if self.later_prompt.count("{instruction}") != 1:
            raise ValueError("next_prompt must contain {instruction} exactly once")
        if self.system_frame.count("{system}") != 1:
            raise ValueError("system_frame must contain {system} exactly once")
        if self.completion.count("{completion}") != 1 or not self.completion.endswith("{eos}"):
            raise ValueError("completion must contain {completion} once and end with {eos}, where the answer stops")
        if self.completion.count("{eos}") != 1:
            raise ValueError("completion has a second {eos}; the model would stop at the first")
        if self.system and "{system}" not in self.prompt:
            raise ValueError("system is set but prompt has no {system}; add it or remove system")
        for key, text, foreign in (
            ("prompt", self.prompt, ("bos", "completion")),
            ("next_prompt", self.later_prompt, ("system", "completion")),
            ("system_frame", self.system_frame, ("bos", "completion", "instruction")),
            ("completion", self.completion, ("bos", "system", "instruction")),
        ):
            for name in PLACEHOLDER.findall(text):
                if name in foreign:
                    why = "; the begin token is put there by itself" if (key, name) == ("prompt", "bos") else ""
                    raise ValueError(f"{key} cannot contain {{{name}}}{why}")
        return self

    @property
    def later_prompt(self) -> str:
        """The prompt of every turn but the first."""
        return self.prompt.replace("{system}", "") if self.next_prompt is None else self.next_prompt

    @property
    def markers(self) -> tuple[str, ...]:
        """The literal texts of the prompt's lines, such as ``### RESPONSE:``."""
        texts = (self.system_frame, self.prompt, self.later_prompt)
        lines = (line for text in texts for line in text.splitlines())
        pieces = (piece.strip() for line in lines for piece in PLACEHOLDER.split(line)[::2])
        return tuple(dict.fromkeys(piece for piece in pieces if piece))


def _kind(value: Any) -> str:
    return MODEL if value == MODEL else "text"


PromptTemplate = Annotated[
    Annotated[TemplateText, Tag("text")] | Annotated[Literal["model"], Tag(MODEL)], Discriminator(_kind)
]
"""A template's text, or the base model's own."""


def template_names() -> list[str]:
    """What ``parameters.prompt.template`` may be called."""
    return sorted([*(path.stem for path in FOLDER.glob("*.yaml")), MODEL])


def named_template(name: str) -> dict[str, Any]:
    """The fields of the template of that name.

    Raises:
        ValueError: there is none.
    """
    names = template_names()
    if name not in names or name == MODEL:
        close = get_close_matches(name, names, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"{name!r} is not a template{hint} ({', '.join(names)}, or a mapping with the key prompt)")
    fields: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return {"name": name, **fields}
