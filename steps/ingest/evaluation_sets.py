"""Reads the files of evaluation sets as those to train on are read."""

from collections.abc import Iterator, Mapping

from steps.errors import DataError
from steps.files import sha256_of
from steps.ingest.readers import read_file
from steps.resolve.evaluation_sets import evaluation_file
from steps.resolve.locks import LockedSource


def set_records(lock: LockedSource, key: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Where each record of a locked set stands, and its fields.

    Args:
        lock: the set's file as ``resolve`` found it.
        key: where the configuration names it, for the error.

    Raises:
        DataError: the file changed since then or cannot be read, or a line is no record.
    """
    path = evaluation_file(lock.name, key)
    if [sha256_of(path)] != list(lock.files.values()):
        raise DataError(f"{path}: changed since the resolve step locked it; start the run again")
    for record in read_file(path).records:
        if record.problem:
            raise DataError(f"{record.location}: {record.problem}; mend the line or remove it")
        if not record.blank:
            yield record.location, record.fields
