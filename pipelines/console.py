"""What a person sees on the console: of a run, of a command, of an error."""

import io
import logging
import os
import warnings
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click

from pipelines.refusals import refusal
from steps.errors import ConfigError
from steps.files import DISK_REFUSES

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

QUIET_LIBRARIES = (
    "transformers",
    "datasets",
    "great_expectations",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "torch",
    "matplotlib",
)

ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "ZENML_ANALYTICS_OPT_IN": "false",
}
"""Defaults for this process and those that it starts; a value that the user has set stays.

ZenML's analytics would report each run to its maker's server. The choice that the user stored in ZenML's own
configuration is not changed.
"""

ADVERTS = (
    "Models can be viewed in the dashboard using ZenML Pro",
    "You can visualize your pipeline runs in the",
)
"""How log lines begin that tell nothing about the run."""


class ConsoleFilter(logging.Filter):
    """Keeps adverts off the console, and the traceback of a user's error, whose message ends the run."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown; a user's error and a machine's loses its traceback, any other error keeps it."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and refusal(error) is not None:
            record.exc_info = record.exc_text = None
        if isinstance(record.args, tuple):
            record.args = tuple(_plain(value) for value in record.args)
        return not str(record.msg).startswith(ADVERTS)


def _plain(value: object) -> object:
    """An error that the machine is the reason of as its one line; ZenML logs it with the database's statement."""
    return (refusal(value) or value) if isinstance(value, BaseException) else value


CONSOLE_FILTER = ConsoleFilter()


def quiet_console() -> None:
    """Keep libraries' chatter off the console; ZenML's lines on steps and every real error stay."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    # "Loading weights" and the like; the rooms show bars of their own
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
    logging.raiseExceptions = False  # a reader that has left, such as head, is no reason for a traceback a line
    for handler in logging.getLogger().handlers:
        handler.addFilter(CONSOLE_FILTER)


class PlainError(click.ClickException):
    """A user's error at the end of a command: its lines, each after ``error:``, and exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the lines on the error stream."""
        for line in self.message.splitlines():
            click.echo(f"error: {line}", file=file, err=True)


@contextmanager
def plain_errors() -> Iterator[None]:
    """In a command line (any click command, ZenML's too) turn a user's error, or the machine's, into plain lines.

    Elsewhere, say in a notebook or a test, the error itself passes.
    """
    try:
        yield
    except click.ClickException:  # is plain already
        raise
    except Exception as error:
        plain = refusal(error)
        if plain is None or click.get_current_context(silent=True) is None:
            raise
        raise PlainError(str(plain)) from None


@contextmanager
def plain_command() -> Iterator[None]:
    """Decorates each command of ``qlora``: libraries are quiet, and what a user or the machine got wrong is plain."""
    quiet_console()
    with plain_errors():
        yield


def duration(seconds: float) -> str:
    """Such as ``12.3 s``, ``5 min``, ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def plain_console(width: int) -> "Console":
    """A console whose text :func:`text_of` gives: no colours, ``width`` columns."""
    from rich.console import Console

    return Console(file=io.StringIO(), width=width, highlight=False, markup=False, color_system=None)


def plain_table(columns: Iterable[str], right: Container[str] = (), gap: int = 2) -> "Table":
    """A table without lines; values in the columns ``right`` end at one place, and long ones are folded, never cut."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, gap), header_style="")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def printed(part: "RenderableType", width: int) -> str:
    """A table or tree as plain text."""
    console = plain_console(width)
    console.print(part)
    return text_of(console)


def text_of(console: "Console") -> str:
    """What was printed on a :func:`plain_console`, without spaces at the ends of lines."""
    file = cast("io.StringIO", console.file)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def write_page(file: Path, html: str) -> None:
    """Write a page into the file that ``--html`` names; a new file of which the disk takes a part is removed again.

    Raises:
        ConfigError: there is no such folder, or nobody may write there.
    """
    new = not file.exists()
    try:
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        with suppress(OSError):
            if new:
                file.unlink()
        if error.errno in DISK_REFUSES:
            raise
        raise ConfigError(
            f"--html {file}: cannot be written ({error.strerror}); name a file in a folder of yours"
        ) from error
