"""A tokenizer in the terms of GGUF: tokens, types, merges or scores, and the name of how text is split before."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.errors import ModelError
from steps.tokenizer import begin_token, load_tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

CONVERTER = "use llama.cpp's own converter, convert_hf_to_gguf.py, on the merged model"

BYTES = "ByteLevel"
DIGITS = "Digits"
SPLITS = {
    (BYTES,): "gpt-2",
    (DIGITS, BYTES): "smollm",
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+",
    ): "llama-bpe",
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+",
    ): "qwen2",
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ): "tekken",
}
"""How a byte-level tokenizer splits text before it merges -> llama.cpp's name of that (its src/llama-vocab.cpp)."""

LONG_PAUSE = -1e9
"""Score of a token that no merge makes."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer (``tokenizer.*``)."""

    model: str  # "gpt2": byte-level BPE; "llama": SentencePiece's BPE
    split: str  # llama.cpp's name
    tokens: list[str]
    types: list[int]  # of gguf.TokenType
    merges: list[str]  # byte-level: pairs in the order of their ranks
    scores: list[float]  # SentencePiece: the higher the earlier a token is made
    special: dict[str, int]  # bos, eos, unk, pad -> id
    begins: bool  # a sequence begins with the bos token
    space: bool  # a text begins with a space
    chat_template: str
    read_alike: bool  # transformers 5.23 makes of the file what llama.cpp makes of it

    def add_to(self, writer: "GGUFWriter") -> None:
        """Write it as the file's keys."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.split)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges:
            writer.add_token_merges(self.merges)
        if self.scores:
            writer.add_token_scores(self.scores)
        add_id = {
            "bos": writer.add_bos_token_id,
            "eos": writer.add_eos_token_id,
            "unk": writer.add_unk_token_id,
            "pad": writer.add_pad_token_id,
        }
        for name, number in self.special.items():
            add_id[name](number)
        writer.add_add_bos_token(self.begins)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(self.space)
        writer.add_chat_template(self.chat_template)


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The tokenizer of a model's folder.

    Args:
        folder: the model.
        size: rows of its embedding; ids that no token has are filled.

    Raises:
        ModelError: llama.cpp has no name for how the tokenizer works.
    """
    tokenizer = load_tokenizer(folder)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    if model["type"] != "BPE":
        raise ModelError(
            f"parameters.exports.gguf: a tokenizer of type {model['type']} is not written here, only BPE; {CONVERTER}"
        )
    sentencepiece = bool(model.get("byte_fallback"))
    split = "default" if sentencepiece else _split(state["pre_tokenizer"])
    prepends = '"Prepend"' in json.dumps(state["normalizer"])
    pairs = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    tokens, types = _tokens(tokenizer, size, sentencepiece)
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    return Vocabulary(
        model="llama" if sentencepiece else "gpt2",
        split=split,
        tokens=tokens,
        types=types,
        merges=[] if sentencepiece else [" ".join(pair) for pair in pairs],
        scores=_scores(tokens, pairs) if sentencepiece else [],
        special={name: number for name, number in ids.items() if number is not None},
        begins=bool(begin_token(tokenizer)),
        space=sentencepiece and (prepends or _begins_with_space(state["pre_tokenizer"])),
        chat_template=str(tokenizer.chat_template),
        # not the split at each digit, and not a second space before a text that begins with one
        read_alike=split != "smollm" and not prepends,
    )


def _tokens(tokenizer: "PreTrainedTokenizerBase", size: int, sentencepiece: bool) -> tuple[list[str], list[int]]:
    """Every id's token and its type."""
    from gguf import TokenType

    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = {number: token.special for number, token in tokenizer.added_tokens_decoder.items()}
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(size)]

    def kind(number: int) -> int:
        if number not in by_id:
            return int(TokenType.UNUSED)
        if sentencepiece and number == tokenizer.unk_token_id:
            return int(TokenType.UNKNOWN)
        if number in added:
            return int(TokenType.CONTROL if added[number] else TokenType.USER_DEFINED)
        byte = sentencepiece and len(token := by_id[number]) == 6 and token.startswith("<0x")
        return int(TokenType.BYTE if byte else TokenType.NORMAL)

    return tokens, [kind(number) for number in range(size)]


def _scores(tokens: list[str], pairs: list[tuple[str, ...]]) -> list[float]:
    """Minus the rank of the first merge that makes a token: SentencePiece makes the highest score first."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks[token]) if token in ranks else LONG_PAUSE for token in tokens]


def _split(pre_tokenizer: dict[str, Any] | None) -> str:
    """llama.cpp's name for what a byte-level tokenizer does before it merges."""
    stage = pre_tokenizer or {"type": "none"}
    parts = stage["pretokenizers"] if stage["type"] == "Sequence" else [stage]
    kinds = tuple(kind for part in parts if (kind := _kind(part)))
    if kinds not in SPLITS:
        raise ModelError(
            f"parameters.exports.gguf: llama.cpp's name is not known for how the tokenizer splits text "
            f"({', '.join(kinds)}); {CONVERTER}"
        )
    return SPLITS[kinds]


def _kind(part: dict[str, Any]) -> str:
    """A step of the pre-tokenizer: its pattern, or its type, "" where it splits nothing."""
    if part["type"] == BYTES and not part["add_prefix_space"]:
        return BYTES if part["use_regex"] else ""
    if part["type"] == DIGITS and part["individual_digits"]:
        return DIGITS
    if part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
        return str(part["pattern"].get("Regex", part["pattern"]))
    return str(part["type"]) + " with other settings"


def _begins_with_space(pre_tokenizer: dict[str, Any] | None) -> bool:
    stage = pre_tokenizer or {}
    return any(part.get("prepend_scheme", "never") != "never" for part in stage.get("pretokenizers", [stage]))
