"""What a user did or gave that cannot work: each message says where, what is wrong and what to do."""

from collections.abc import Iterator


class PipelineError(Exception):
    """Base of every error that is the input's and not the program's; shown as one line, without a traceback."""


class ConfigError(PipelineError):
    """A configuration file has unknown keys, wrong types or impossible values."""


class DataError(PipelineError):
    """A data source is missing, unreadable, empty or below its required quality."""


class ModelError(PipelineError):
    """A base model, tokenizer, adapter or merged model is missing, unsafe or not what it must be."""


class DeviceError(PipelineError):
    """The machine lacks what was asked for: a precision, an attention kernel, memory or disk space."""


class TrainingError(PipelineError):
    """A training diverged, was told to stop, or is already being run by another process."""


class EvaluationError(PipelineError):
    """One of several processes of an evaluation failed or was killed."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it came from, and so on."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
