"""What the rules must know of the run's prompt and tokenizer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.chat_template import Template
from steps.tokenizer import encoder, special_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZED_TOGETHER = 1000
"""Texts that are tokens at the same time; decides memory and speed, never the result."""


@dataclass(frozen=True)
class Prompt:
    """What the rules look for and how they count; ``max_length`` is in tokens."""

    tokenizer: "Tokenizer"
    special_tokens: tuple[str, ...]
    markers: tuple[str, ...]
    frame_tokens: int
    """Tokens of an example beside its instruction and completion: system text, markers, begin and end."""
    max_length: int

    def token_counts(self, texts: list[str]) -> list[int]:
        """Tokens of each text by itself."""
        counts: list[int] = []
        for start in range(0, len(texts), TOKENIZED_TOGETHER):
            batch = texts[start : start + TOKENIZED_TOGETHER]
            counts += map(len, self.tokenizer.encode_batch_fast(batch, add_special_tokens=False))
        return counts


def prompt_of(template: Template, max_length: int) -> Prompt:
    """What a template that is bound to the run's tokenizer says, and the tokens of a block."""
    tokenizer = encoder(template.tokenizer)
    frame = template.prompts([""])[0] + template.answer("")
    return Prompt(
        tokenizer=tokenizer,
        special_tokens=special_tokens(template.tokenizer),
        markers=template.markers,
        frame_tokens=len(tokenizer.encode(frame, add_special_tokens=False)) + 1,
        max_length=max_length,
    )
