"""Rows -> token ids: what fits, what is cut, what is left out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value

from steps.chat_template import Template
from steps.format.params import PromptParameters
from steps.rows import EXAMPLE_FEATURES, batches_of, dataset_of
from steps.tokenizer import IGNORED, continuation_encoder, encoder, special_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROBES = ("", "a", " a", "\na", "Add 1.", "def f(x):\n    return 'é 🙂'\n")
"""Instructions on which a prompt in two parts is compared with the whole."""

SEQUENCE_FEATURES = Features(
    {"row_id": Value("string"), "input_ids": List(Value("int32")), "labels": List(Value("int32"))}
)

LEFT_OUT_FEATURES = Features({name: Value("string") for name in ("row_id", "split", "location", "reason")})


@dataclass
class LeftOut:
    """Rows of one split that give no sequence or no example, and how many were cut."""

    split: str
    rows: list[dict[str, str]] = field(default_factory=list)
    refused: int = 0
    too_long: int = 0
    cut: int = 0

    def add(self, row: dict[str, Any], reason: str) -> None:
        """Keep a row's id and place with the reason."""
        self.rows.append({"row_id": row["row_id"], "split": self.split, "location": row["location"], "reason": reason})


@dataclass(frozen=True)
class Encoded:
    """One row as token ids; the completion ends with the end token."""

    row: dict[str, Any]
    prompt: str
    prompt_ids: list[int]
    completion_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


class Encoder:
    """Renders and tokenises rows in batches.

    Prompt and completion are tokenised apart: generation starts from the prompt's own tokens, so training does too.
    """

    def __init__(self, template: Template) -> None:
        self.template = template
        self.end: int = template.tokenizer.eos_token_id
        self.start_encoder: Tokenizer = encoder(template.tokenizer)
        self.completion_encoder: Tokenizer = continuation_encoder(template.tokenizer)
        self.refused = "|".join(map(re.escape, template.refused))
        self.head, self.head_ids = self._shared_head()

    def encode(self, rows: pa.Table, left_out: LeftOut) -> Iterator[Encoded]:
        """The rows that spell nothing that could end a turn; the others are left out."""
        safe = self._safe(rows, left_out)
        if not safe:
            return
        prompts = self.template.prompts([row["instruction"] for row in safe])
        completions = [self.template.answer(row["completion"]) for row in safe]
        behind = [prompt[self.head :] for prompt in prompts]
        starts = self.start_encoder.encode_batch_fast(behind, add_special_tokens=False)
        ends = self.completion_encoder.encode_batch_fast(completions, add_special_tokens=False)
        for row, prompt, start, end in zip(safe, prompts, starts, ends, strict=True):
            yield Encoded(row, prompt, self.head_ids + start.ids, [*end.ids, self.end])

    def _shared_head(self) -> tuple[int, list[int]]:
        """Characters that all prompts share up to the last control token before the instruction, and their token ids.

        A tokenizer splits a text at its control tokens first, so what stands before one needs to be tokenised once.
        Where that does not hold for a few instructions, nothing is shared.
        """
        before, after = self.template.frame or ("", "")
        tokens = "|".join(map(re.escape, special_tokens(self.template.tokenizer)))
        head = max((match.end() for match in re.finditer(tokens, before)), default=0)

        def ids(text: str) -> list[int]:
            encoded: list[int] = self.start_encoder.encode(text, add_special_tokens=False).ids
            return encoded

        head_ids = ids(before[:head])
        shared = all(
            ids(prompt) == head_ids + ids(prompt[head:]) for prompt in (f"{before}{probe}{after}" for probe in PROBES)
        )
        return (head, head_ids) if shared else (0, [])

    def _safe(self, rows: pa.Table, left_out: LeftOut) -> list[dict[str, Any]]:
        texts = [pc.binary_join_element_wise("\n", rows[name], "") for name in ("instruction", "completion")]
        found = pc.or_(*(pc.match_substring_regex(text, self.refused) for text in texts))
        for row in rows.filter(found).to_pylist():
            match = re.search(self.refused, f"\n{row['instruction']}\n{row['completion']}")
            left_out.add(row, f"spells {match[0].strip() if match else ''}, which could end a turn")
            left_out.refused += 1
        safe: list[dict[str, Any]] = rows.filter(pc.invert(found)).to_pylist()
        return safe


def examples_of(rows: Dataset, encode: Encoder, max_length: int, left_out: LeftOut) -> Dataset:
    """Rows that fit ``max_length`` tokens whole, as single examples to evaluate on (``EXAMPLE_FEATURES``)."""

    def tables() -> Iterator[pa.Table]:
        for batch in batches_of(rows):
            kept = [
                one.row | {"prompt": one.prompt, "prompt_ids": one.prompt_ids, "completion_ids": one.completion_ids}
                for one in encode.encode(batch, left_out)
                if _fits(one, max_length, left_out)
            ]
            yield pa.Table.from_pylist(kept, schema=EXAMPLE_FEATURES.arrow_schema)

    return dataset_of(tables(), EXAMPLE_FEATURES)


def sequences_of(rows: Dataset, encode: Encoder, prompt: PromptParameters, left_out: LeftOut) -> Dataset:
    """Token ids and labels to train on (``SEQUENCE_FEATURES``): one sequence a row, several where it is split."""

    def tables() -> Iterator[pa.Table]:
        for batch in batches_of(rows):
            ids: list[list[int]] = []
            labels: list[list[int]] = []
            names: list[str] = []
            for one in encode.encode(batch, left_out):
                for tokens, targets in _sequences(one, prompt, left_out):
                    ids.append(tokens)
                    labels.append(targets)
                    names.append(one.row["row_id"])
            yield pa.table([names, ids, labels], schema=SEQUENCE_FEATURES.arrow_schema)

    return dataset_of(tables(), SEQUENCE_FEATURES)


def _fits(one: Encoded, max_length: int, left_out: LeftOut) -> bool:
    if len(one) <= max_length:
        return True
    left_out.add(one.row, f"{len(one):,} tokens, more than {max_length:,}")
    left_out.too_long += 1
    return False


def _sequences(one: Encoded, prompt: PromptParameters, left_out: LeftOut) -> list[tuple[list[int], list[int]]]:
    """Sequences of at most ``max_length`` tokens, each with a completion token."""
    limit, start = prompt.max_length, len(one.prompt_ids)
    ids = one.prompt_ids + one.completion_ids
    labels = list(ids) if prompt.loss_on == "all" else [IGNORED] * start + one.completion_ids
    if prompt.packing == "wrapped" or len(ids) <= limit:
        return [(ids, labels)]
    room = limit - start
    if prompt.too_long == "drop" or (prompt.too_long == "truncate_completion_keep_eos" and room < 2):
        _fits(one, limit, left_out)
        return []
    left_out.cut += 1
    if prompt.too_long == "truncate_completion_keep_eos":
        return [(ids[: limit - 1] + ids[-1:], labels[: limit - 1] + labels[-1:])]
    first = start // limit * limit  # pieces before it hold prompt alone and would train nothing
    return [(ids[at : at + limit], labels[at : at + limit]) for at in range(first, len(ids), limit)]
