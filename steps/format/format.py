"""Rows -> sequences of tokens -> blocks, and single examples to evaluate on."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from steps.chat_template import Template, bind_template
from steps.errors import DataError, ModelError
from steps.files import require_space
from steps.format.pack import pack
from steps.format.params import PromptParameters
from steps.format.report import FormatReport, ShownSequence, SplitFormat
from steps.format.shown import shown_sequence
from steps.format.tokenize import LEFT_OUT_FEATURES, Encoder, LeftOut, examples_of, sequences_of
from steps.lengths import lengths_of
from steps.provenance import write_provenance
from steps.resolve.base_model import local_tokenizer
from steps.resolve.locks import ModelLock
from steps.rows import batches_of, list_lengths, table_of
from steps.tokenizer import IGNORED, SAVED_BYTES

if TYPE_CHECKING:
    import numpy.typing as npt

SHOWN_ROWS = 10
BINS = 32

ROUND_TRIP = "def f(x):\n    if x:\n        return  {x: 'é'}\n"
"""Code with what a tokenizer may lose: indentation, two spaces, letters beyond ASCII."""


def format_rows(
    rows: DatasetDict, model: ModelLock, prompt: PromptParameters, output: Path
) -> tuple[DatasetDict, DatasetDict, Dataset, FormatReport]:
    """Render, tokenise and pack.

    Args:
        rows: splits train, validation and test with the columns of ``steps.rows.ROW_FEATURES``.
        model: the base model, for its tokenizer.
        prompt: template, limits and packing.
        output: folder that gets the tokenizer with the template as its ``chat_template``.

    Returns:
        Blocks (splits train and validation, ``BLOCK_FEATURES``), single examples (splits validation and test,
        ``EXAMPLE_FEATURES``), the rows that gave neither (``LEFT_OUT_FEATURES``), and the report.

    Raises:
        DataError: no training row is left.
        ModelError: the tokenizer does not give back the text that it was given.
    """
    require_space(output, SAVED_BYTES, "the tokenizer")
    template = bind_template(prompt.template, prompt.system, local_tokenizer(model))
    encode = Encoder(template)
    require_round_trip(encode, model.name)
    template.tokenizer.save_pretrained(output)
    write_provenance(output, prompt=prompt)

    blocks, examples, figures = DatasetDict(), DatasetDict(), []
    left_out: list[LeftOut] = []
    for name, split in rows.items():
        cut, whole = LeftOut(name), LeftOut(name)
        if name != "test":
            sequences = sequences_of(split, encode, prompt, cut)
            blocks[name] = pack(sequences, prompt.max_length, prompt.packing)
            figures.append(_split_report(split, list_lengths(sequences, "input_ids"), blocks[name], cut, prompt))
        if name != "train":
            examples[name] = examples_of(split, encode, prompt.max_length, whole)
        if name == "test":
            figures.append(
                _split_report(split, list_lengths(examples[name], "prompt_ids", "completion_ids"), None, whole, prompt)
            )
        left_out.append(cut if name == "train" else whole)
    if not len(blocks["train"]):
        raise DataError(
            f"parameters.prompt.max_length: none of the {len(rows['train'])} training rows fits "
            f"{prompt.max_length} tokens; raise it"
        )
    rows_left_out = table_of((row for one in left_out for row in one.rows), LEFT_OUT_FEATURES)
    samples = first_sequences(rows["train"], encode, prompt, 3 * SHOWN_ROWS)[:SHOWN_ROWS]  # some may be too long
    return blocks, examples, rows_left_out, _report(template, prompt, figures, samples)


def require_round_trip(encode: Encoder, name: str) -> None:
    """Refuse a tokenizer that cannot give code back, such as one that drops indentation.

    Raises:
        ModelError: prompt and completion, decoded together, do not end with the completion.
    """
    row = pa.table({"row_id": ["probe"], "location": [""], "instruction": ["Add one."], "completion": [ROUND_TRIP]})
    one = next(iter(encode.encode(row, LeftOut(""))))
    tokenizer = encode.template.tokenizer
    text = tokenizer.decode([*one.prompt_ids, *one.completion_ids[:-1]], clean_up_tokenization_spaces=False)
    if not str(text).endswith(encode.template.answer(ROUND_TRIP)):
        raise ModelError(f"{name}: its tokenizer does not give code back as it was; take a base model for code")


def first_sequences(rows: Dataset, encode: Encoder, prompt: PromptParameters, count: int) -> list[ShownSequence]:
    """The first rows as they are trained, token by token."""
    first = rows.select(range(min(count, len(rows))))
    sequences = sequences_of(first, encode, prompt, LeftOut(""))
    return [
        shown_sequence(one["row_id"], one["input_ids"], one["labels"], encode.template.tokenizer) for one in sequences
    ]


def _split_report(
    rows: Dataset, lengths: "npt.NDArray[np.int64]", blocks: Dataset | None, left_out: LeftOut, prompt: PromptParameters
) -> SplitFormat:
    tokens = int(lengths.sum())
    return SplitFormat(
        name=left_out.split,
        rows=len(rows),
        refused=left_out.refused,
        too_long=left_out.too_long,
        cut=left_out.cut,
        sequences=len(lengths),
        tokens=tokens,
        trained_tokens=_trained(blocks) if blocks is not None else 0,
        blocks=len(blocks) if blocks is not None else 0,
        fill=tokens / (len(blocks) * prompt.max_length) if blocks else 0.0,
        lengths=lengths_of(lengths, np.linspace(0, prompt.max_length, BINS + 1)),
    )


def _trained(blocks: Dataset) -> int:
    return sum(
        pc.sum(pc.not_equal(pc.list_flatten(table["labels"]), IGNORED)).as_py() or 0 for table in batches_of(blocks)
    )


def _report(
    template: Template, prompt: PromptParameters, figures: list[SplitFormat], samples: list[ShownSequence]
) -> FormatReport:
    tokenizer = template.tokenizer
    return FormatReport(
        template=template.name,
        max_length=prompt.max_length,
        too_long=prompt.too_long,
        packing=prompt.packing,
        loss_on=prompt.loss_on,
        eos=str(tokenizer.eos_token),
        eos_id=tokenizer.eos_token_id,
        pad=str(tokenizer.pad_token),
        pad_id=tokenizer.pad_token_id,
        refused_texts=list(template.refused),
        splits=figures,
        samples=samples,
    )
