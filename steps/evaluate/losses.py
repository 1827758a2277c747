"""Completion loss, row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from steps.evaluate.inference import Side, inference
from steps.rows import list_lengths

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

BATCH_TOKENS = 4096
"""Tokens of a forward pass, padding included: their logits are its memory, 1 GB for a vocabulary of 128,000."""


@dataclass(frozen=True)
class RowLoss:
    """Sum of the negative log-likelihoods of a row's completion tokens, in nats, and their number."""

    nats: float
    tokens: int


def completion_losses(
    model: "PreTrainedModel | PeftModel",
    examples: Dataset,
    batch_size: int,
    side: Side,
    batch_tokens: int = BATCH_TOKENS,
) -> list[RowLoss]:
    """Loss of every row's completion tokens, the end token included, in the order of ``examples``.

    Of each batch's logits two numbers a row are kept, so memory does not grow with the number of rows.

    Args:
        model: the model of that side.
        examples: columns ``prompt_ids`` and ``completion_ids``.
        batch_size: most rows of one forward pass; long rows share one with fewer others.
        side: which model it is, for the progress line.
        batch_tokens: most tokens of one forward pass, padding included.
    """
    lengths: list[int] = list_lengths(examples, "prompt_ids", "completion_ids").tolist()
    losses: dict[int, RowLoss] = {}
    with inference(model, "loss", len(lengths), side) as progress:
        for indices in batches_of(lengths, batch_size, batch_tokens):
            rows = [examples[index] for index in indices]
            losses.update(zip(indices, _row_losses(model, rows), strict=True))
            progress.advance(len(losses))
    return [losses[index] for index in range(len(lengths))]


def batches_of(lengths: Sequence[int], batch_size: int, batch_tokens: int) -> Iterator[list[int]]:
    """Rows of like length, longest first, at most ``batch_size`` and ``batch_tokens`` together."""
    order = np.argsort([-length for length in lengths], kind="stable").tolist()
    while order:
        count = min(batch_size, max(1, batch_tokens // lengths[order[0]]))
        yield order[:count]
        order = order[count:]


def _row_losses(model: "PreTrainedModel | PeftModel", rows: list[dict[str, list[int]]]) -> list[RowLoss]:
    """Rows are padded on the right; logits become float32 one row at a time."""
    import torch

    longest = max(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        tokens = row["prompt_ids"] + row["completion_ids"]
        ids[index, : len(tokens)] = torch.tensor(tokens)
        mask[index, : len(tokens)] = 1
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
    return [_row_loss(logits[index], row) for index, row in enumerate(rows)]


def _row_loss(logits: "torch.Tensor", row: dict[str, list[int]]) -> RowLoss:
    import torch

    start, count = len(row["prompt_ids"]), len(row["completion_ids"])
    predicted = logits[start - 1 : start - 1 + count].float()
    targets = torch.tensor(row["completion_ids"], device=logits.device)
    nats = torch.nn.functional.cross_entropy(predicted, targets, reduction="sum")
    return RowLoss(nats=float(nats), tokens=count)
