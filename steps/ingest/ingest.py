"""Reads the locked sources into rows of one shape."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset, concatenate_datasets

from steps.errors import DataError
from steps.files import sha256_of
from steps.ingest.columns import RowTexts, choose_columns, map_row
from steps.ingest.drift import Drift, compare_rows
from steps.ingest.harvest import harvest, license_of
from steps.ingest.hub import read_hub
from steps.ingest.mix import shares_of, smallest
from steps.ingest.readers import read_file
from steps.ingest.records import Record, Records
from steps.ingest.report import IngestedSource, IngestReport
from steps.ingest.unreadable import UnreadableRow, UnreadableRows
from steps.lengths import lengths_of_column
from steps.resolve.data import distribution_of, package_files, source_key
from steps.resolve.locks import DataLock, LockedSource
from steps.resolve.params import DataParameters, Source
from steps.rows import ROW_FEATURES, row_id_of, table_of

Row = dict[str, Any]

SHOWN_LICENSES = 20
"""The most frequent licences of a source that the report names; a wrong column may have one in each row."""


@dataclass
class Reading:
    """One source while it is read: where its unreadable rows go, and how many records were no row."""

    source: Source
    lock: LockedSource
    key: str
    unreadable_rows: UnreadableRows
    unreadable: int = 0
    blank: int = 0


def ingest_sources(
    data: DataParameters, data_lock: DataLock, previous: Dataset | None = None
) -> tuple[Dataset, Dataset, IngestReport]:
    """Read every source at its locked state, and mix them where they have weights.

    Every record of a source is a row, an unreadable row, a blank line or a row left out by the weights.

    Args:
        data: the sources and what they may hold.
        data_lock: their state.
        previous: the rows of the run before (``PREVIOUS_FEATURES``), to report what is new, gone and changed.

    Returns:
        Rows (``ROW_FEATURES``), unreadable rows (``QUARANTINE_FEATURES``) and the report.

    Raises:
        DataError: a source changed since it was locked, cannot be read or has no row, or more rows are
            unreadable than ``max_bad_share`` admits.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        unreadable = UnreadableRows(spool)
        readings = _readings(data, data_lock, unreadable)
        tables = [table_of(_rows(reading), ROW_FEATURES) for reading in readings]
        _refuse_many_unreadable(sum(map(len, tables)), unreadable, data.max_bad_share)
        mixed = _mixed(tables, readings)
        rows = concatenate_datasets(mixed)
        described = [
            _describe(reading, len(table), kept) for reading, table, kept in zip(readings, tables, mixed, strict=True)
        ]
        drift = compare_rows(rows, previous) if previous else None
        return rows, unreadable.dataset(), _report(rows, unreadable, described, drift)


def first_rows(data: DataParameters, data_lock: DataLock, count: int) -> list[Row]:
    """The first readable rows of the first source that has any, without reading on; unreadable ones are passed over.

    Raises:
        DataError: no source has one, or a source is not what was locked.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        unreadable = UnreadableRows(spool)
        for reading in _readings(data, data_lock, unreadable):
            rows = list(islice(_rows(reading), count))
            if rows:
                return rows
        raise DataError(f"{source_key(0)}: no source has a readable row{_why(unreadable)}; mend its rows or files")


def require_first_rows(data: DataParameters, data_lock: DataLock) -> None:
    """Raise :class:`DataError` unless each source of files has the columns that a row needs, and a readable row.

    No file is read beyond its first readable row, but for the columns of .jsonl and .json.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        unreadable = UnreadableRows(spool)
        for reading in _readings(data, data_lock, unreadable):
            if reading.source.files is not None and next(_rows(reading), None) is None:
                name, why = reading.source.name, _why(unreadable)
                raise DataError(f"{reading.key}: {name!r} has no readable row{why}; mend or remove this source")


def _why(unreadable: UnreadableRows) -> str:
    return " ({}: {})".format(*unreadable.first[0]) if unreadable.first else ""


def _readings(data: DataParameters, data_lock: DataLock, unreadable: UnreadableRows) -> list[Reading]:
    pairs = zip(data.sources, data_lock.sources, strict=True)
    return [Reading(source, lock, source_key(index), unreadable) for index, (source, lock) in enumerate(pairs)]


def _mixed(tables: list[Dataset], readings: list[Reading]) -> list[Dataset]:
    for reading, table in zip(readings, tables, strict=True):
        if len(table) == 0:
            raise DataError(f"{reading.key}: {reading.source.name!r} has no rows; mend or remove this source")
    weights = [reading.source.weight for reading in readings if reading.source.weight is not None]
    if not weights:
        return tables
    shares = shares_of([len(table) for table in tables], weights)
    for reading, share in zip(readings, shares, strict=True):
        if share == 0:
            raise DataError(f"{reading.key}.weight: leaves no row of {reading.source.name!r}; raise it")
    return [smallest(table, share) for table, share in zip(tables, shares, strict=True)]


def _rows(reading: Reading) -> Iterator[Row]:
    """The rows of one source; those that cannot be read are set aside."""
    for where, records in _record_sets(reading):
        # A file whose every record is broken has no columns to choose from: its records say what is wrong.
        columns = records.columns
        chosen = choose_columns(reading.source.columns, columns, where, reading.key) if columns else {}
        for record in records.records:
            if record.blank:
                reading.blank += 1
                continue
            try:
                if record.problem:
                    raise UnreadableRow(record.problem)
                texts = map_row(record.fields, chosen)
            except UnreadableRow as reason:
                _set_aside(record, chosen, reading, reason.reasons)
            else:
                yield _row(reading.source, _place(record, chosen, texts), texts)


def _record_sets(reading: Reading) -> Iterator[tuple[str, Records]]:
    source, lock = reading.source, reading.lock
    if source.package is not None:
        yield source.package, _harvested(source, lock, reading.key)
    elif source.hub is not None:
        yield source.hub, read_hub(source, lock.commit, reading.key)
    else:
        for name, digest in lock.files.items():
            _require_unchanged(name, Path(name), digest)
            yield name, read_file(Path(name))


def _require_unchanged(name: str, path: Path | None, digest: str) -> None:
    if path is None or not path.is_file() or sha256_of(path) != digest:
        state = "changed" if path is not None and path.is_file() else "gone"
        raise DataError(f"{name}: {state} since the resolve step locked it; start the run again")


def _harvested(source: Source, lock: LockedSource, key: str) -> Records:
    files = package_files(source.name, key)
    for name, digest in lock.files.items():
        _require_unchanged(name, files.get(name), digest)
    distribution = distribution_of(source.name)
    license = source.license or (license_of(distribution) if distribution else "")
    records = (
        Record(
            found.qualified_name,
            {
                "instruction": found.instruction,
                "completion": found.completion,
                "tests": list(found.tests),
                "preamble": found.preamble,
                "group": found.qualified_name,
                "license": license,
            },
        )
        for found in harvest({name: files[name] for name in lock.files})
    )
    return Records(["instruction", "completion", "tests", "preamble", "group", "license"], records)


def _place(record: Record, chosen: Mapping[str, str], texts: RowTexts) -> str:
    """Where a row stands, with the number that its source gives to the problem."""
    numbered = chosen.get("group") == "task_id" and texts.group
    return f"{record.location} (task_id {texts.group})" if numbered else record.location


def _row(source: Source, location: str, texts: RowTexts) -> Row:
    return {
        "row_id": row_id_of(texts.instruction, texts.completion),
        "source": source.name,
        "location": location,
        "group": texts.group or _group_of(texts.instruction),
        "license": texts.license or source.license,
        "instruction": texts.instruction,
        "completion": texts.completion,
        "tests": texts.tests,
        "preamble": texts.preamble,
    }


def _group_of(instruction: str) -> str:
    """Rows that ask the same, apart from case and spaces, are one group where the source names none."""
    return hashlib.sha256(" ".join(instruction.lower().split()).encode()).hexdigest()[:16]


def _set_aside(record: Record, chosen: Mapping[str, str], reading: Reading, reasons: tuple[str, ...]) -> None:
    """Keep what an unreadable record holds; what is no record at all, or a chat, as the instruction."""
    reading.unreadable += 1
    fields = record.fields
    texts: tuple[object, object]
    if record.problem:
        texts = (record.found, None)
    elif "messages" in chosen:
        texts = (fields.get(chosen["messages"]), None)
    else:
        texts = (fields.get(chosen.get("instruction", "")), fields.get(chosen.get("completion", "")))
    reading.unreadable_rows.add(reading.source.name, record.location, texts, reasons)


def _refuse_many_unreadable(readable: int, unreadable: UnreadableRows, limit: float) -> None:
    count, total = unreadable.count, readable + unreadable.count
    if count <= limit * total:
        return
    first = "; ".join(f"{location}: {reasons}" for location, reasons in unreadable.first[:3])
    more = f" and {count - 3} more" if count > 3 else ""
    raise DataError(
        f"{first}{more}: {count} of {total} rows are unreadable ({count / total:.1%}) "
        f"and parameters.data.max_bad_share admits {limit:.1%}; mend the rows or raise it"
    )


def _describe(reading: Reading, read: int, kept: Dataset) -> IngestedSource:
    source, lock = reading.source, reading.lock
    kind = "files" if source.files is not None else "hub" if source.hub is not None else "package"
    state = lock.commit or lock.version or f"{len(lock.files)} file{'s' if len(lock.files) != 1 else ''}"
    table = kept.with_format("arrow").select_columns(["license", "tests"])[:]
    licenses = Counter({found["values"]: found["counts"] for found in pc.value_counts(table["license"]).to_pylist()})
    return IngestedSource(
        name=source.name,
        kind=kind,
        state=state,
        records=read + reading.unreadable + reading.blank,
        blank=reading.blank,
        unreadable=reading.unreadable,
        left_out_by_weight=read - len(kept),
        rows=len(kept),
        with_tests=pc.sum(pc.greater(pc.list_value_length(table["tests"]), 0)).as_py(),
        licenses=dict(licenses.most_common(SHOWN_LICENSES)),
    )


def _report(
    rows: Dataset, unreadable: UnreadableRows, described: list[IngestedSource], drift: Drift | None
) -> IngestReport:
    return IngestReport(
        sources=described,
        rows=len(rows),
        unreadable=unreadable.count,
        blank=sum(source.blank for source in described),
        left_out_by_weight=sum(source.left_out_by_weight for source in described),
        with_tests=sum(source.with_tests for source in described),
        instruction_chars=lengths_of_column(rows, "instruction"),
        completion_chars=lengths_of_column(rows, "completion"),
        unreadable_examples=unreadable.first,
        drift=drift,
    )
