"""Reads the locked sources into rows of one shape."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from steps.errors import DataError
from steps.files import sha256_of
from steps.ingest.columns import RowTexts, UnreadableRow, choose_columns, map_row
from steps.ingest.harvest import harvest, license_of
from steps.ingest.readers import Record, Records, read_file, read_hub
from steps.ingest.report import IngestedSource, IngestReport
from steps.lengths import lengths_of
from steps.resolve.data import distribution_of, package_files, source_key
from steps.resolve.locks import DataLock, LockedSource
from steps.resolve.params import DataParameters, Source
from steps.rows import QUARANTINE_FEATURES, ROW_FEATURES, row_id_of, table_of

SHOWN = 10
"""Unreadable rows that the report and the error name."""

Row = dict[str, Any]


def ingest_sources(data: DataParameters, data_lock: DataLock) -> tuple[Dataset, Dataset, IngestReport]:
    """Read every source at its locked state.

    Returns:
        Rows (``ROW_FEATURES``), unreadable rows (``QUARANTINE_FEATURES``) and the report.

    Raises:
        DataError: a source changed since it was locked, cannot be read or has no row, or more rows are
            unreadable than ``max_bad_share`` admits.
    """
    tables, unreadable, described = [], [], []
    for index, (source, lock) in enumerate(zip(data.sources, data_lock.sources, strict=True)):
        bad: list[Row] = []
        table = table_of(_rows(source, lock, source_key(index), bad), ROW_FEATURES)
        tables.append(table)
        unreadable.extend(bad)
        described.append(_describe(source, lock, table, len(bad)))
    rows = concatenate_datasets(tables)
    _refuse_many_unreadable(len(rows), unreadable, data.max_bad_share)
    for index, found in enumerate(described):
        if found.rows == 0:
            raise DataError(f"{source_key(index)}: {found.name!r} has no rows; mend or remove this source")
    return rows, table_of(unreadable, QUARANTINE_FEATURES), _report(rows, unreadable, described)


def _rows(source: Source, lock: LockedSource, key: str, bad: list[Row]) -> Iterator[Row]:
    """The rows of one source; those that cannot be read are appended to ``bad``."""
    if source.package is not None:
        yield from _harvested(source, lock, key)
        return
    for where, records in _record_sets(source, lock, key):
        # A file whose every record is broken has no columns to choose from: its records say what is wrong.
        chosen = choose_columns(source.columns, records.columns, where, key) if records.columns else {}
        for record in records.records:
            try:
                if record.problem:
                    raise UnreadableRow(record.problem)
                texts = map_row(record.fields, chosen)
            except UnreadableRow as reason:
                bad.append(_unreadable(source, record, chosen, str(reason)))
            else:
                yield _row(source, record.location, texts)


def _record_sets(source: Source, lock: LockedSource, key: str) -> Iterator[tuple[str, Records]]:
    if source.hub is not None:
        yield source.hub, read_hub(source, lock.commit, key)
    else:
        for name, digest in lock.files.items():
            _require_unchanged(name, Path(name), digest)
            yield name, read_file(Path(name))


def _require_unchanged(name: str, path: Path | None, digest: str) -> None:
    if path is None or not path.is_file() or sha256_of(path) != digest:
        state = "changed" if path is not None and path.is_file() else "gone"
        raise DataError(f"{name}: {state} since the resolve step locked it; start the run again")


def _harvested(source: Source, lock: LockedSource, key: str) -> Iterator[Row]:
    files = package_files(source.name, key)
    for name, digest in lock.files.items():
        _require_unchanged(name, files.get(name), digest)
    distribution = distribution_of(source.name)
    license = source.license or (license_of(distribution) if distribution else "")
    for found in harvest({name: files[name] for name in lock.files}):
        texts = RowTexts(found.instruction, found.completion, found.tests, found.qualified_name, license)
        yield _row(source, found.qualified_name, texts)


def _row(source: Source, location: str, texts: RowTexts) -> Row:
    return {
        "row_id": row_id_of(texts.instruction, texts.completion),
        "source": source.name,
        "location": location,
        "group": texts.group or _group_of(texts.instruction),
        "license": texts.license or source.license,
        "instruction": texts.instruction,
        "completion": texts.completion,
        "tests": list(texts.tests),
    }


def _group_of(instruction: str) -> str:
    """Rows that ask the same, apart from case and spaces, are one group where the source names none."""
    return hashlib.sha256(" ".join(instruction.lower().split()).encode()).hexdigest()[:16]


def _unreadable(source: Source, record: Record, chosen: dict[str, str], reason: str) -> Row:
    shown = {
        ours: str(record.fields.get(chosen.get(ours, ""), "")).encode(errors="replace").decode()
        for ours in ("instruction", "completion")
    }
    return {
        "row_id": row_id_of(shown["instruction"], shown["completion"]),
        "source": source.name,
        "location": record.location,
        **shown,
        "reasons": [reason],  # the first thing that is wrong; nothing after it was read
    }


def _refuse_many_unreadable(readable: int, unreadable: list[Row], limit: float) -> None:
    share = len(unreadable) / max(readable + len(unreadable), 1)
    if share <= limit:
        return
    first = "; ".join(f"{row['location']}: {row['reasons'][0]}" for row in unreadable[:3])
    more = f" and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
    raise DataError(
        f"{first}{more}: {len(unreadable)} of {readable + len(unreadable)} rows are unreadable ({share:.1%}) "
        f"and parameters.data.max_bad_share admits {limit:.1%}; mend the rows or raise it"
    )


def _describe(source: Source, lock: LockedSource, table: Dataset, unreadable: int) -> IngestedSource:
    kind = "files" if source.files is not None else "hub" if source.hub is not None else "package"
    state = lock.commit or lock.version or f"{len(lock.files)} file{'s' if len(lock.files) != 1 else ''}"
    return IngestedSource(
        name=source.name,
        kind=kind,
        state=state,
        rows=len(table),
        unreadable=unreadable,
        with_tests=sum(bool(tests) for tests in table["tests"]),
        licenses=dict(Counter(table["license"]).most_common()),
    )


def _report(rows: Dataset, unreadable: list[Row], described: list[IngestedSource]) -> IngestReport:
    return IngestReport(
        sources=described,
        rows=len(rows),
        unreadable=len(unreadable),
        with_tests=sum(source.with_tests for source in described),
        instruction_chars=lengths_of(rows["instruction"]),
        completion_chars=lengths_of(rows["completion"]),
        unreadable_examples=[(row["location"], row["reasons"][0]) for row in unreadable[:SHOWN]],
    )
