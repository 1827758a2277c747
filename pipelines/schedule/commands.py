"""Other programs of the machine."""

import shutil
import subprocess

from steps.errors import DeviceError


def run(program: str, *arguments: str, given: str = "", check: bool = True) -> str | None:
    """Output of a program; without ``check`` its exit code does not matter, and None says that it is not installed.

    Raises:
        DeviceError: with ``check``, it is not there or fails; the message has its own.
    """
    path = shutil.which(program)
    if path is None:
        if check:
            raise DeviceError(f"{program}: no such program here; install it")
        return None
    command = [path, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)  # noqa: S603 - callers name fixed programs
    if check and done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise DeviceError(f"{' '.join([program, *arguments])}: {said}")
    return done.stdout
