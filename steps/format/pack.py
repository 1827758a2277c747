"""Blocks of tokens for training."""

from typing import TYPE_CHECKING

from steps.format.params import PromptParameters

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100
"""Label of a token that does not count in the loss (torch.nn.CrossEntropyLoss)."""


def label(examples: "Dataset", prompt: PromptParameters) -> "Dataset":
    """``input_ids`` and ``labels`` of each example: prompt, completion and the end token, nothing padded."""
    keep_prompt = prompt.loss_on == "all"

    def tokens(row: dict[str, list[int]]) -> dict[str, list[int]]:
        start, end = row["prompt_ids"], row["completion_ids"]
        return {"input_ids": start + end, "labels": (start if keep_prompt else [IGNORED] * len(start)) + end}

    return examples.map(tokens, remove_columns=examples.column_names, desc="label")


def pack(labelled: "Dataset", prompt: PromptParameters) -> "Dataset":
    """Fill blocks of ``max_length`` tokens by the strategy of the parameters (TRL's ``pack_dataset``).

    With ``bfd`` the column ``seq_lengths`` says where each example of a block ends, so that attention stays inside it.
    """
    if prompt.packing == "none" or not len(labelled):
        return labelled
    from trl.data_utils import pack_dataset

    return pack_dataset(labelled, seq_length=prompt.max_length, strategy=prompt.packing)
