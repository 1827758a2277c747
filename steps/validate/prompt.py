"""What the rules must know of the run's prompt and tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steps.errors import ModelError
from steps.tokenizer import PLACEHOLDER, begin_token, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZED_TOGETHER = 1000
"""Texts that are tokens at the same time; decides memory and speed, never the result."""


@dataclass(frozen=True)
class PromptText:
    """The prompt's template with its placeholders, its system text, and the tokens of a block."""

    template: str
    system: str
    max_length: int


@dataclass(frozen=True)
class Prompt:
    """The prompt bound to a tokenizer."""

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


def bind_prompt(text: PromptText, tokenizer_folder: Path) -> Prompt:
    """Read the tokenizer of a model folder.

    Raises:
        ModelError: the folder has no tokenizer, or one without an end token, or one that runs in Python alone and
            would take hours.
    """
    loaded = load_tokenizer(tokenizer_folder)
    if not loaded.is_fast:
        raise ModelError(f"{tokenizer_folder}: {type(loaded).__name__} has no fast form; use a base model that has one")
    values = {"system": text.system, "instruction": "", "eos": str(loaded.eos_token)}
    frame = PLACEHOLDER.sub(lambda match: values[match[1]], text.template)
    tokenizer = loaded.backend_tokenizer
    tokenizer.no_padding()  # a tokenizer file may ask for either
    tokenizer.no_truncation()
    return Prompt(
        tokenizer=tokenizer,
        special_tokens=tuple(map(str, loaded.all_special_tokens)),
        markers=markers_of(text.template),
        frame_tokens=len(tokenizer.encode(frame, add_special_tokens=False)) + 1 + bool(begin_token(loaded)),
        max_length=text.max_length,
    )


def markers_of(template: str) -> tuple[str, ...]:
    """The literal texts of a template's lines, such as ``### RESPONSE:``."""
    pieces = (piece.strip() for line in template.splitlines() for piece in PLACEHOLDER.split(line)[::2])
    return tuple(dict.fromkeys(piece for piece in pieces if piece))
