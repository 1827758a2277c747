"""A tiny random Llama with tokenizers of its own, and rows that it can learn: real parts, but small."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 400
VERBS = ("add", "subtract", "multiply", "shift", "scale", "raise", "lower", "move")


def row(number: int) -> dict[str, str]:
    """One instruction -> code row; equal numbers give equal rows."""
    name = f"{VERBS[number % len(VERBS)]}_{number}"
    return {
        "instruction": f"Write a function {name} that returns its argument plus {number}.",
        "completion": f"def {name}(value):\n    return value + {number}\n",
    }


def write_rows(path: Path, count: int = 80) -> Path:
    """A JSONL file of ``count`` rows."""
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(count)), encoding="utf-8")
    return path


def byte_level_bpe(texts: Iterable[str], size: int, specials: list[str], unknown: str | None = None) -> "Tokenizer":
    """Trained on the texts; its first tokens are the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE trained on the rows; Llama-2 style: ``<s>`` in front, ``</s>`` at the end; ``<pad>`` pads."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    texts = (text for number in range(80) for text in row(number).values())
    tokenizer = byte_level_bpe(texts, VOCABULARY, ["<unk>", "<s>", "</s>", "<pad>"], unknown="<unk>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has no types there
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder)


def write_model(folder: Path, *, width: int = 64, seed: int = 0, biases: bool = False, tied: bool = False) -> Path:
    """A Llama of two layers with random weights, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        attention_bias=biases,
        mlp_bias=biases,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    write_tokenizer(folder)
    return folder
