"""One answer of a model: its text, how it ended, and how much of it repeats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPEATED_TOKENS = 4
"""Tokens of a sequence that counts as repeated: seq-rep-4 of Welleck et al. 2020, arXiv:1908.04319."""


@dataclass(frozen=True)
class Answer:
    """What a model wrote, whether it ended by itself or was cut, and how much of it repeats what it wrote before.

    ``tokens`` and ``repetition`` are of what the model wrote alone: no end token, and no beginning given to it.
    """

    text: str
    stopped: bool
    tokens: int
    repetition: float = 0.0


def answer_of(tokens: list[int], tokenizer: "PreTrainedTokenizerBase", prefix: str = "") -> Answer:
    """The answer that the tokens spell, without the end token.

    Some templates, Llama-2's for one, put a space before an answer: it belongs to the format, not to the code.
    """
    stopped = tokens[-1] == tokenizer.eos_token_id
    kept = tokens[:-1] if stopped else tokens
    text = str(tokenizer.decode(kept, skip_special_tokens=True))
    whole = prefix + text.rstrip() if prefix else text.strip()
    return Answer(text=whole, stopped=stopped, tokens=len(kept), repetition=repetition(kept))


def repetition(tokens: Sequence[int]) -> float:
    """Share of an answer's sequences of four tokens that occur earlier in it; 0 where it has fewer than four tokens.

    1 - different sequences / sequences, seq-rep-n of "Neural Text Generation with Unlikelihood Training" (Welleck et
    al. 2020, arXiv:1908.04319, section 6.1).
    """
    grams = list(zip(*(tokens[start:] for start in range(REPEATED_TOKENS)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
