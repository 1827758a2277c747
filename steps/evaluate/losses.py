"""Completion loss, row by row."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.evaluate.inference import Side, inference

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class RowLoss:
    """Sum of the negative log-likelihoods of a row's completion tokens, in nats, and their number."""

    nats: float
    tokens: int


def completion_losses(
    model: "PreTrainedModel | PeftModel", examples: Dataset, batch_size: int, side: Side
) -> list[RowLoss]:
    """Loss of every row's completion tokens, the end token included, in the order of ``examples``.

    Rows are sorted by length and padded on the right; logits become float32 one row at a time, so memory does not
    grow with the number of rows.

    Args:
        model: the model of that side.
        examples: columns ``prompt_ids`` and ``completion_ids``.
        batch_size: rows of one forward pass.
        side: which model it is, for the progress line.
    """

    order = sorted(range(len(examples)), key=lambda index: _length(examples[index]))
    losses: dict[int, RowLoss] = {}
    with inference(model, "loss", len(order), side) as progress:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            rows = [examples[index] for index in indices]
            logits = _logits(model, rows)
            for position, (index, row) in enumerate(zip(indices, rows, strict=True)):
                losses[index] = _row_loss(logits[position], row)
            progress.advance(start + len(indices))
    return [losses[index] for index in range(len(examples))]


def _length(row: dict[str, list[int]]) -> int:
    return len(row["prompt_ids"]) + len(row["completion_ids"])


def _logits(model: "PreTrainedModel | PeftModel", rows: list[dict[str, list[int]]]) -> "torch.Tensor":
    import torch

    longest = max(map(_length, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        tokens = row["prompt_ids"] + row["completion_ids"]
        ids[index, : len(tokens)] = torch.tensor(tokens)
        mask[index, : len(tokens)] = 1
    logits: torch.Tensor = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
    return logits


def _row_loss(logits: "torch.Tensor", row: dict[str, list[int]]) -> RowLoss:
    import torch

    start, count = len(row["prompt_ids"]), len(row["completion_ids"])
    predicted = logits[start - 1 : start - 1 + count].float()
    targets = torch.tensor(row["completion_ids"], device=logits.device)
    nats = torch.nn.functional.cross_entropy(predicted, targets, reduction="sum")
    return RowLoss(nats=float(nats), tokens=count)
