"""The tokenizer as training and serving use it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.errors import ModelError
from steps.files import digest_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that does not count in the loss (torch.nn.CrossEntropyLoss)."""


SAVED_BYTES = 50_000_000
"""More than the files of any tokenizer take on a disk."""


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model folder, padding on the right.

    Raises:
        ModelError: the folder has none, or one without an end-of-sequence token, or one that runs in Python alone and
            would take hours.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}: no tokenizer can be read there ({str(error).splitlines()[0]}); put tokenizer.json and "
            "tokenizer_config.json of the model beside its config.json"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: {type(tokenizer).__name__} has no fast form; use a base model that has one")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{folder}: the tokenizer has no end-of-sequence token; a model tuned with it could not stop")
    tokenizer.padding_side = "right"
    return tokenizer


def vocabulary_hash(folder: Path) -> str:
    """SHA-256, hexadecimal, of every token with its id; chat template and padding do not count."""
    vocabulary = load_tokenizer(folder).get_vocab()
    return digest_of(vocabulary)


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


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, ...]:
    """Every text that the tokenizer reads as a control token, such as ``</s>`` or ``<|im_start|>``."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return tuple(dict.fromkeys([*map(str, tokenizer.all_special_tokens), *added]))


def encoder(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """The tokenizer's own engine, for whole batches of texts that start a sequence: no padding, nothing cut."""
    return _unbounded(json.loads(tokenizer.backend_tokenizer.to_str()))


def continuation_encoder(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """The same for texts that continue a sequence.

    SentencePiece tokenizers, Llama-2's for one, put a space before a text's first word. Before a completion that space
    would be trained, and an answer to the served prompt would begin with it.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for kind, parts in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")):
        stage = state[kind]
        sequence = stage[parts] if stage and stage["type"] == "Sequence" else [stage] if stage else []
        kept = [_without_space(part) for part in sequence if part["type"] != "Prepend"]
        state[kind] = {"type": "Sequence", parts: kept} if kept else None
    return _unbounded(state)


def _without_space(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if part["type"] == "ByteLevel":
        return {**part, "add_prefix_space": False}
    return part


def _unbounded(state: dict[str, Any]) -> "Tokenizer":
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps({**state, "padding": None, "truncation": None}))


def generation_config(tokenizer: "PreTrainedTokenizerBase") -> "GenerationConfig":
    """How a tuned model generates unless a caller says otherwise: greedy, as it is evaluated, to the end token."""
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]  # transformers has no types there
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
