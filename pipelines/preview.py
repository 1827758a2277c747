"""Rows as they would be trained: rendered and as token ids, without running the pipeline."""

from collections.abc import Iterator
from itertools import groupby

import click

from pipelines.config import CheckedConfig
from steps.errors import DataError
from steps.format.params import PromptParameters
from steps.format.report import ShownSequence
from steps.resolve.params import BaseModelParameters, DataParameters


def preview(config: CheckedConfig, count: int) -> Iterator[str]:
    """Lines that show the first ``count`` rows of the data; each run of given or trained tokens with its ids.

    Rows are shown as they come from their source: the data rules and the split have not seen them.

    Raises:
        PipelineError: data, base model or template cannot be used.
    """
    from steps.chat_template import bind_template
    from steps.format.format import first_sequences
    from steps.format.tokenize import Encoder
    from steps.ingest.ingest import first_rows
    from steps.resolve.base_model import local_tokenizer, lock_model
    from steps.resolve.data import lock_data
    from steps.rows import ROW_FEATURES, table_of

    data, prompt = config.valid("data", DataParameters), config.valid("prompt", PromptParameters)
    base_model = config.valid("base_model", BaseModelParameters)
    template = bind_template(prompt.template, prompt.system, local_tokenizer(lock_model(base_model)))
    rows = first_rows(data, lock_data(data), count)
    shown = first_sequences(table_of(rows, ROW_FEATURES), Encoder(template), prompt, count)
    names = {row["row_id"]: f"row {number}, {row['location']}" for number, row in enumerate(rows, start=1)}
    if not shown:
        raise DataError(f"parameters.prompt: none of the first {len(rows)} rows would be trained; raise max_length")
    for sequence in shown:
        yield from _lines(names[sequence.row_id], sequence)
    eos, pad = template.tokenizer.eos_token, template.tokenizer.pad_token
    yield f"template {template.name}; an answer ends with {eos} ({template.tokenizer.eos_token_id}), padding is {pad}"


def _lines(title: str, sequence: ShownSequence) -> Iterator[str]:
    trained = sum(token.trained for token in sequence.tokens)
    yield click.style(f"{title}: {len(sequence.tokens)} tokens, {trained} trained", bold=True)
    for is_trained, run in groupby(sequence.tokens, key=lambda token: token.trained):
        tokens = list(run)
        yield click.style(f"--- {'trained' if is_trained else 'given'}, {len(tokens)} tokens ---", dim=True)
        yield "".join(
            click.style(token.text, fg="yellow" if token.special else "green" if is_trained else None)
            for token in tokens
        )
        yield click.style(" ".join(str(token.id) for token in tokens), dim=True)
    yield ""
