"""Reader of Hugging Face hub data sets."""

from collections.abc import Iterator
from contextlib import contextmanager

from steps.errors import DataError
from steps.files import DISK_REFUSES
from steps.ingest.records import Record, Records
from steps.resolve.base_model import LOG_IN
from steps.resolve.params import Source
from steps.token import without_token


def read_hub(source: Source, commit: str, key: str) -> Records:
    """The records of a hub data set at a commit.

    They are downloaded into the Hugging Face cache, or read as they come where ``source.streaming`` is true.

    Raises:
        DataError: no such subset or split, a data set that needs its own code, or no network; where rows are
            streamed, also while iterating.
    """
    from datasets import load_dataset

    with _explained(source, commit, key):
        dataset = load_dataset(
            source.name, name=source.subset, split=source.split, revision=commit, streaming=source.streaming
        )
        # A stream of JSON lines does not know its columns before its first row.
        columns = dataset.column_names or list(next(iter(dataset), {}))

    def records() -> Iterator[Record]:
        with _explained(source, commit, key):
            for number, fields in enumerate(dataset):
                yield Record(f"{source.name}:{source.split}[{number}]", fields)

    return Records(list(columns), records())


@contextmanager
def _explained(source: Source, commit: str, key: str) -> Iterator[None]:
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (DatasetsError, ValueError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in DISK_REFUSES:
            raise
        reason = " ".join(str(without_token(error)).split())
        remedy = f"mend {key}.subset or {key}.split, or check the network"
        if "gated" in reason:
            remedy = f"ask for access at https://huggingface.co/datasets/{source.name}, then {LOG_IN}"
        raise DataError(
            f"{key}.hub: {source.name!r} at {commit[:12]}, subset {source.subset}, split {source.split!r} "
            f"cannot be loaded ({reason}); {remedy}"
        ) from error
