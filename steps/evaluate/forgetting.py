"""What the tuned model forgets: its loss on a text that has nothing to do with the training, against the base's."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from steps.errors import DataError
from steps.evaluate.losses import RowLoss
from steps.evaluate.report import ForgettingReport
from steps.evaluate.statistics import compare_losses
from steps.files import sha256_of
from steps.provenance import read_provenance
from steps.resolve.benchmarks import TEXT_KEY, reference_file
from steps.resolve.locks import LockedSource
from steps.tokenizer import begin_token, encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WINDOW_TOKENS = 1024
"""Of a window, unless the model's context is shorter: a longer one says little more."""

MIN_WINDOWS = 2
"""Below that there is no interval."""


def read_reference(lock: LockedSource) -> str:
    """The reference text.

    Args:
        lock: its file as ``resolve`` found it.

    Raises:
        DataError: the file changed since then, or is not UTF-8.
    """
    path = reference_file(lock.name)
    if [sha256_of(path)] != list(lock.files.values()):
        raise DataError(f"{path}: changed since the resolve step locked it; start the run again")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


def windows_of(text: str, tokenizer: "PreTrainedTokenizerBase", length: int, count: int) -> Dataset:
    """Windows of the text, columns as ``completion_losses`` wants them: a window's first token only starts it.

    The whole text becomes tokens once and is cut into pieces that follow each other and do not overlap; the last,
    incomplete one is left out. ``count`` of them, evenly spread, are taken. Where the tokenizer puts a token before a
    text, each window begins with it.

    Args:
        text: the reference text.
        tokenizer: the trained tokenizer.
        length: tokens of a window, that of the beginning included.
        count: most windows.

    Raises:
        DataError: the text is too short for two windows.
    """
    ids: list[int] = encoder(tokenizer).encode(text, add_special_tokens=False).ids
    start = [int(tokenizer.bos_token_id)] if begin_token(tokenizer) else []
    size = length - len(start)
    found = len(ids) // size
    if found < MIN_WINDOWS:
        raise DataError(
            f"{TEXT_KEY}: {len(ids):,} tokens make {found} windows of {size:,}, and an interval needs {MIN_WINDOWS}; "
            "give a longer text, or null"
        )
    chosen = np.linspace(0, found - 1, min(count, found)).round().astype(int)
    windows = [[*start, *ids[index * size : (index + 1) * size]] for index in chosen]
    return Dataset.from_dict(
        {"prompt_ids": [one[:1] for one in windows], "completion_ids": [one[1:] for one in windows]}
    )


def context_of(model_folder: Path) -> int:
    """Most tokens that a window may have for the model; those without position embeddings set no bound."""
    from transformers import AutoConfig

    trusted = read_provenance(model_folder)["base_model"]["trust_remote_code"]
    config = AutoConfig.from_pretrained(model_folder, trust_remote_code=trusted).get_text_config()
    return min(WINDOW_TOKENS, getattr(config, "max_position_embeddings", WINDOW_TOKENS))


def compare_reference(name: str, confidence: float, base: list[RowLoss], tuned: list[RowLoss]) -> ForgettingReport:
    """Loss and perplexity on the reference text; the differences' intervals are over windows."""
    figures = compare_losses(base, tuned, confidence)
    return ForgettingReport(
        text=Path(name).name,
        windows=len(base),
        tokens=sum(row.tokens for row in base),
        figures=[one.model_copy(update={"name": f"reference {one.name}"}) for one in figures],
    )
