"""Other programs of the machine."""

import os
import shutil
import subprocess

from steps.errors import DeviceError


def run(program: str, *arguments: str, given: str = "") -> str:
    """Output of a program.

    Raises:
        DeviceError: it is not there or fails; the message has its own.
    """
    done = attempt(program, *arguments, given=given)
    if done is None:
        raise DeviceError(f"{program}: no such program here; install it")
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise DeviceError(f"{' '.join([program, *arguments])}: {said}")
    return done.stdout


def attempt(program: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str] | None:
    """The end of a program, in plain English whatever the user's language; None where it is not installed."""
    path = shutil.which(program)
    if path is None:
        return None
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(  # noqa: S603 - callers name fixed programs
        [path, *arguments], input=given, env=environment, capture_output=True, text=True, check=False
    )
