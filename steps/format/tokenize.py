"""Rows -> tokenised examples -> blocks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict, Features, List, Value

from steps.errors import DataError
from steps.files import require_space
from steps.format.pack import label, pack
from steps.format.params import PromptParameters
from steps.format.report import FormatReport, SplitFormat
from steps.format.template import Template, bind_template
from steps.provenance import write_provenance
from steps.resolve.base_model import local_tokenizer
from steps.resolve.locks import ModelLock
from steps.rows import table_of
from steps.tokenizer import choose_padding, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXAMPLE_FEATURES = Features(
    {
        "row_id": Value("string"),
        "source": Value("string"),
        "license": Value("string"),
        "instruction": Value("string"),
        "prompt": Value("string"),
        "completion": Value("string"),
        "tests": List(Value("string")),
        "prompt_ids": List(Value("int32")),
        "completion_ids": List(Value("int32")),
    }
)
SHOWN_EXAMPLES = 3
TOKENIZER_BYTES = 50_000_000


def format_rows(
    rows: DatasetDict, model: ModelLock, prompt: PromptParameters, output: Path
) -> tuple[DatasetDict, DatasetDict, FormatReport]:
    """Render, tokenise and pack.

    Args:
        rows: splits train, validation and test with the columns of ``steps.rows.ROW_FEATURES``.
        model: the base model, for its tokenizer.
        output: folder that gets the tokenizer with the template as its ``chat_template``.

    Returns:
        Blocks (splits train and validation: ``input_ids``, ``labels``, with packing ``bfd`` also ``seq_lengths``),
        single examples (splits validation and test, columns of ``EXAMPLE_FEATURES``), and the report.

    Raises:
        DataError: no training row is left.
    """
    require_space(output, TOKENIZER_BYTES, "the tokenizer")
    tokenizer = load_tokenizer(local_tokenizer(model))
    choose_padding(tokenizer)
    template = bind_template(prompt, tokenizer)
    tokenizer.chat_template = template.chat_template()
    tokenizer.save_pretrained(output)
    write_provenance(output, prompt=prompt)

    examples, blocks, figures = DatasetDict(), DatasetDict(), []
    for name, split in rows.items():
        kept, too_long, unsafe = tokenize(split, tokenizer, template, prompt.max_length)
        packed = pack(label(kept, prompt), prompt)
        figures.append(_figures(name, split, kept, packed, too_long, unsafe, prompt))
        if name != "test":
            blocks[name] = packed
        if name != "train":
            examples[name] = kept
        elif not len(kept):
            raise DataError(
                f"parameters.prompt.max_length: none of the {len(split)} training rows fits "
                f"{prompt.max_length} tokens; raise it"
            )
    return blocks, examples, _report(tokenizer, template, prompt, rows["train"], figures)


def tokenize(
    rows: Dataset, tokenizer: "PreTrainedTokenizerBase", template: Template, max_length: int
) -> tuple[Dataset, list[str], list[str]]:
    """Examples that fit, ids of rows longer than ``max_length`` tokens, ids of rows that contain a special token.

    Text that spells a special token (``</s>``) would end a turn inside a row, so such a row is set aside. Prompt and
    completion are tokenised apart, as generation starts from the prompt's own tokens.
    """
    specials = [str(token) for token in tokenizer.all_special_tokens]
    kept: list[dict[str, Any]] = []
    too_long: list[str] = []
    unsafe: list[str] = []
    for row in rows:
        if any(token in row["instruction"] or token in row["completion"] for token in specials):
            unsafe.append(row["row_id"])
            continue
        prompt = template.prompt(row["instruction"])
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        completion_ids = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        completion_ids = [*completion_ids, tokenizer.eos_token_id]
        if len(prompt_ids) + len(completion_ids) > max_length:
            too_long.append(row["row_id"])
            continue
        example = {name: row[name] for name in ("row_id", "source", "license", "instruction", "completion", "tests")}
        kept.append({**example, "prompt": prompt, "prompt_ids": prompt_ids, "completion_ids": completion_ids})
    return table_of(kept, EXAMPLE_FEATURES), too_long, unsafe


def _figures(
    name: str,
    rows: Dataset,
    kept: Dataset,
    packed: Dataset,
    too_long: list[str],
    unsafe: list[str],
    prompt: PromptParameters,
) -> SplitFormat:
    lengths = [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in kept]
    trained = lengths if prompt.loss_on == "all" else [len(ids) for ids in kept["completion_ids"]]
    return SplitFormat(
        name=name,
        rows=len(rows),
        examples=len(kept),
        too_long=too_long,
        unsafe=unsafe,
        tokens=sum(lengths),
        trained_tokens=sum(trained),
        blocks=len(packed),
        fill=sum(lengths) / (len(packed) * prompt.max_length) if len(packed) else 0.0,
        lengths=lengths,
    )


def _report(
    tokenizer: "PreTrainedTokenizerBase",
    template: Template,
    prompt: PromptParameters,
    rows: Dataset,
    figures: list[SplitFormat],
) -> FormatReport:
    shown = rows.select(range(min(SHOWN_EXAMPLES, len(rows))))
    return FormatReport(
        max_length=prompt.max_length,
        packing=prompt.packing,
        loss_on=prompt.loss_on,
        bos=template.bos,
        eos=template.eos,
        pad=str(tokenizer.pad_token),
        splits=figures,
        samples=[(template.prompt(row["instruction"]), template.completion(row["completion"])) for row in shown],
    )
