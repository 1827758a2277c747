"""What a process leaves that failed, and what is made of it."""

import sys
import time
import traceback
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from steps import errors
from steps.errors import PipelineError
from steps.files import write_whole


class Failure(BaseModel):
    """How a process ended."""

    rank: int
    attempt: str
    at: float  # seconds since the epoch
    kind: str  # of the exception
    message: str
    traceback: str
    left: dict[str, Any] | None = None  # what new processes have to know, where they may go on

    def write(self, folder: Path) -> None:
        """Leave it for the process that started this one."""
        write_whole(folder / f"failure-{self.rank}.json", self.model_dump_json())


def failure_of(error: BaseException, rank: int, attempt: str, left: dict[str, Any] | None = None) -> Failure:
    """What is known of an error that ends a process."""
    return Failure(
        rank=rank,
        attempt=attempt,
        at=time.time(),
        kind=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
        left=left,
    )


def failures(folder: Path, attempt: str) -> list[Failure]:
    """Those that processes left in an attempt, the first to fail first."""
    found = [Failure.model_validate_json(path.read_text(encoding="utf-8")) for path in folder.glob("failure-*.json")]
    return sorted((one for one in found if one.attempt == attempt), key=lambda one: one.at)


def error_of(failure: Failure, processes: int, otherwise: type[PipelineError], kept: str) -> PipelineError:
    """The error to raise: what the process raised if it is one of ours, else one that names the process.

    Args:
        failure: the first one.
        processes: their number.
        otherwise: of an error that is not ours.
        kept: what is not lost, as the message says it.
    """
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, PipelineError):
        return kind(failure.message)
    print(failure.traceback, file=sys.stderr, flush=True)
    first = failure.message.splitlines()[0] if failure.message else ""
    return otherwise(
        f"process {failure.rank} of {processes} (from 0) failed first, and the others were ended: {failure.kind}: "
        f"{first}; {kept}, so run again to go on from there"
    )
