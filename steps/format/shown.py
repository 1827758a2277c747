"""Token ids as a person reads them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.format.report import ShownSequence, ShownToken
from steps.tokenizer import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def shown_sequence(
    row_id: str, ids: Sequence[int], labels: Sequence[int], tokenizer: "PreTrainedTokenizerBase"
) -> ShownSequence:
    """Each token with its own text, whether it counts in the loss, and whether it is a control token.

    A character of several tokens, an emoji for one, stands as a replacement character in its first.
    """
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    tokens = []
    for position, (number, label) in enumerate(zip(ids, labels, strict=True)):
        before = list(ids[position - 1 : position])  # some decoders drop the space before a text's first token
        text = str(tokenizer.decode([*before, number]))[len(tokenizer.decode(before)) :]
        tokens.append(ShownToken(id=number, text=text, trained=label != IGNORED, special=number in special))
    return ShownSequence(row_id=row_id, tokens=tokens)
