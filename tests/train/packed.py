"""Packed blocks as a captured step takes them."""

from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

BLOCK = 32
LENGTHS = [[9, 12], [20], [5, 6, 7]]
TRAINED = sum(length - 1 for lengths in LENGTHS for length in lengths)  # nothing predicts a sequence's first token


def packed(lengths: list[list[int]] = LENGTHS, seed: int = 0) -> dict[str, Any]:
    """Blocks as TRL's collator makes one row of them."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for block in lengths:
        ids = torch.randint(4, 400, (sum(block),), generator=generator).tolist()
        examples.append({"input_ids": ids, "labels": list(ids), "seq_lengths": block})
    batch: dict[str, Any] = DataCollatorForLanguageModeling(pad_token_id=3, padding_free=True)(examples)
    return batch
