"""Starts the template process, from which every sandbox is a fork."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from steps.errors import DeviceError
from steps.evaluate.sandbox import child

Start = Callable[[Sequence[int]], None]
"""Starts a sandbox with these descriptors as its standard input, output and error, and beyond."""

ROOT = Path(__file__).resolve().parents[3]
CODE = f"""
import sys
library = list(sys.path)
sys.path.insert(0, {str(ROOT)!r})
from {child.__name__} import main
main(library)
"""


@contextmanager
def template() -> Iterator[Start]:
    """A template, and the function that makes it fork; several threads may call that.

    Hashes are the same in every run, so that a test which depends on the order of a set always says the same.

    Raises:
        DeviceError: by the function: the template has ended.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", "-s", "-S", "-c", CODE]  # as in -I, but for the one variable below
    process = subprocess.Popen(  # noqa: S603 - this interpreter and our own code
        command, stdin=theirs.fileno(), env={"PYTHONHASHSEED": "0"}, cwd="/", start_new_session=True
    )
    theirs.close()

    def start(descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(ours, [b"x"], list(descriptors))
        except OSError as error:
            raise DeviceError(f"the sandbox's template process has ended ({error.strerror})") from error

    try:
        yield start
    finally:
        ours.close()
        process.wait()
