"""What is called when a scheduled run fails: a command or a webhook. Neither ever hides the run's own failure."""

import json
import os
import platform
import subprocess
import urllib.request
from dataclasses import asdict, dataclass
from http.client import HTTPException
from urllib.parse import urlsplit

COMMAND_SECONDS = 60
URL_SECONDS = 30


@dataclass(frozen=True)
class Failure:
    """One run that failed."""

    schedule: str
    configuration: str
    exit_code: int
    """Of the run; negative: the signal that ended it."""
    error: str
    host: str = platform.node()

    @property
    def text(self) -> str:
        """All of it for a person."""
        return f"{self.schedule} failed on {self.host} ({self.configuration}, exit code {self.exit_code})\n{self.error}"


def call(hook: str, failure: Failure) -> str:
    """Tell the hook; why that did not work, empty where it did.

    A command gets the text on its input and the parts as ``QLORA_SCHEDULE``, ``QLORA_CONFIGURATION``,
    ``QLORA_EXIT_CODE`` and ``QLORA_ERROR``. A URL gets a POST with the parts and the text as JSON.
    """
    return _post(hook, failure) if hook.startswith(("http://", "https://")) else _execute(hook, failure)


def _post(url: str, failure: Failure) -> str:
    body = json.dumps({**asdict(failure), "text": failure.text}).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - http or https, as call() saw
        with urllib.request.urlopen(request, timeout=URL_SECONDS):  # noqa: S310 - the same
            return ""
    except OSError as error:  # refused, not found, 404, 500: their texts have no address
        return f"{urlsplit(url).hostname}: {error}"
    except (ValueError, HTTPException) as error:  # these quote the address, which may be a secret
        return f"{type(error).__name__}: not an address that can be called"


def _execute(command: str, failure: Failure) -> str:
    parts = {f"QLORA_{name.upper()}": str(value) for name, value in asdict(failure).items()}
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command line, as cron would run it
            ["/bin/sh", "-c", command],
            input=failure.text,
            text=True,
            env={**os.environ, **parts},
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the command took more than {COMMAND_SECONDS} s"
    except OSError as error:
        return f"the command: {error}"
    return f"the command ended with exit code {done.returncode}" if done.returncode else ""
