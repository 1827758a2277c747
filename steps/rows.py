"""The columns of a row from ingestion to evaluation."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import generate_random_fingerprint

from steps.scratch import scratch

if TYPE_CHECKING:
    import numpy.typing as npt

BATCH_ROWS = 1000
"""Rows that are turned into Arrow together; decides memory and speed, never the result."""

ROW_FEATURES = Features(
    {
        "row_id": Value("string"),  # 16 hexadecimal digits of SHA-256 over instruction and completion
        "source": Value("string"),  # hub id, file pattern or package name
        "location": Value("string"),  # "data/train.jsonl:12", "boltons.iterutils.chunked"
        "group": Value("string"),  # rows of one group never straddle a split: source function, problem id
        "license": Value("string"),  # SPDX id where the source states one, else ""
        "instruction": Value("string"),
        "completion": Value("string"),
        "tests": List(Value("string")),  # one doctest session or assert statements each; empty where there is none
        "preamble": Value("string"),  # code that the completion stands below in its source, run before an answer; or ""
    }
)

PREVIOUS_FEATURES = Features({name: ROW_FEATURES[name] for name in ("row_id", "group", "location")})
"""What ``resolve`` hands on of the previous run's rows: enough to tell rows apart, not their texts."""

QUARANTINE_FEATURES = Features(
    {
        **{name: ROW_FEATURES[name] for name in ("row_id", "source", "location", "instruction", "completion")},
        "reasons": List(Value("string")),  # every rule that the row broke
    }
)

EXAMPLE_FEATURES = Features(
    {
        **{name: feature for name, feature in ROW_FEATURES.items() if name not in ("location", "group")},
        "prompt": Value("string"),
        "prompt_ids": List(Value("int32")),
        "completion_ids": List(Value("int32")),  # the end token last
    }
)
"""Tokenised rows: what models are measured on."""


def row_id_of(instruction: str, completion: str) -> str:
    """First 16 hexadecimal digits of SHA-256 over both texts: equal texts are one row in any source."""
    return hashlib.sha256(f"{instruction}\0{completion}".encode()).hexdigest()[:16]


def table_of(rows: Iterable[Mapping[str, object]], features: Features) -> Dataset:
    """The rows as a data set on disk; at most :data:`BATCH_ROWS` of them are Python objects at a time."""
    schema = features.arrow_schema
    waiting = iter(rows)
    batches = iter(lambda: list(islice(waiting, BATCH_ROWS)), [])
    return dataset_of((pa.Table.from_pylist(batch, schema=schema) for batch in batches), features)


def batches_of(rows: Dataset) -> Iterator[pa.Table]:
    """The rows as Arrow tables of :data:`BATCH_ROWS` rows, nothing of them as Python objects."""
    batches: Iterator[pa.Table] = rows.with_format("arrow").iter(batch_size=BATCH_ROWS)
    return batches


def list_lengths(rows: Dataset, *columns: str) -> "npt.NDArray[np.int64]":
    """Items of each row's lists, summed over the columns: of token ids, the tokens of each row."""
    counts = [
        sum(pc.list_value_length(table[name]).to_numpy().astype(np.int64) for name in columns)
        for table in batches_of(rows)
    ]
    return np.concatenate([np.zeros(0, np.int64), *counts])


def dataset_of(tables: Iterable[pa.Table], features: Features) -> Dataset:
    """The tables as one memory-mapped data set, so that memory does not grow with the number of rows.

    Its file has no name any more: the disk space is free again when nothing refers to the data set.
    """
    schema = features.arrow_schema
    with scratch("rows") as folder:
        path = folder / "rows.arrow"
        with path.open("wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
            for table in tables:
                writer.write_table(table.cast(schema))
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
            # Given a fingerprint, since datasets would else pickle the whole table in memory to make one.
            return Dataset(table, fingerprint=generate_random_fingerprint())
