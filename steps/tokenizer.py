"""The tokenizer as training and serving use it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from steps.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACEHOLDER = re.compile(r"\{(system|instruction|eos)\}")
"""What a prompt template fills in."""


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model folder, padding on the right.

    Raises:
        ModelError: the folder has none, or it has no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no tokenizer can be read there ({str(error).splitlines()[0]})") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{folder}: the tokenizer has no end-of-sequence token; a model tuned with it could not stop")
    tokenizer.padding_side = "right"
    return tokenizer


def choose_padding(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Make the padding token another one than the end-of-sequence token, where the tokenizer has one.

    Taken in this order: its own padding token, its unknown token, any other special token but begin and end. Where
    none exists padding stays the end token; labels and masks are built from lengths, so the end token is trained all
    the same.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    taken = {tokenizer.eos_token, tokenizer.bos_token}
    others = [tokenizer.unk_token, *tokenizer.all_special_tokens]
    free = [token for token in others if token and token not in taken]
    tokenizer.pad_token = free[0] if free else tokenizer.eos_token


def begin_token(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The token that the tokenizer puts before a sequence, "" where it puts none."""
    return str(tokenizer.bos_token) if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] else ""
