"""Rows as ingestion gives them."""

from collections.abc import Sequence

from datasets import Dataset

from steps.rows import ROW_FEATURES, row_id_of, table_of


def rows_of(*texts: tuple[str, str], **columns: str | Sequence[object]) -> Dataset:
    """Rows with these instructions and completions, each a group of its instruction; row i lies at ``file:i``.

    What is given for a column is one text for all rows, or a value for each.
    """
    plain = {"source": "file", "license": "MIT", "tests": [], "preamble": ""}
    rows = [
        {**plain, "row_id": row_id_of(*pair), "location": f"file:{i}", "group": pair[0]}
        | {"instruction": pair[0], "completion": pair[1]}
        | {name: given if isinstance(given, str) else given[i] for name, given in columns.items()}
        for i, pair in enumerate(texts)
    ]
    return table_of(rows, ROW_FEATURES)
