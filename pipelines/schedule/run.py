"""What a timer starts: ``python -m pipelines.schedule.run NAME`` runs a schedule once and calls its hook if that fails.

The run itself is a process of its own (:mod:`pipelines.schedule.night`), so that one that is killed, say for memory, is
reported too. Exit codes: 0 done, whether or not anything was retrained or promoted; 75 the former run was still
going on; else the run failed.
"""

import os
import subprocess
import sys
from collections import deque
from datetime import datetime

from pipelines.credentials import without_secrets
from pipelines.schedule import hook, store
from pipelines.schedule.systemd import BUSY
from steps.errors import ConfigError

KEPT_LINES = 20
"""Last lines of a run that failed without an error of its own, for the message."""

ERROR = "error: "


def main(name: str) -> int:
    """Run it; the exit code."""
    try:
        entry = store.entry_named(name)
    except ConfigError as error:
        print(f"{ERROR}{error}", file=sys.stderr)
        return 1
    began = f"{datetime.now():%Y-%m-%d %H:%M}"
    code, lines = _follow(entry)
    if code == BUSY:
        return BUSY
    if code == 0:
        store.note(name, f"{began} {lines[-1]}")
        return 0
    errors = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    said = without_secrets("\n".join(errors or lines))
    store.note(name, f"{began} failed: {said.splitlines()[-1] if said else f'exit code {code}'}")
    if entry.schedule.on_failure is not None:
        failure = hook.Failure(name, str(entry.schedule.configuration), code, said)
        problem = hook.call(entry.schedule.on_failure, failure)
        print(f"on-failure hook failed: {problem}" if problem else "on-failure hook called", flush=True)
    print(f"{name}: the run failed, exit code {code}", flush=True)
    return code if code > 0 else 128 - code  # as a shell says it of a signal


def _follow(entry: store.Entry) -> tuple[int, list[str]]:
    """Run the night, show what it prints; its exit code and last lines."""
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    with subprocess.Popen(  # noqa: S603 - this interpreter and our own code
        [sys.executable, "-m", "pipelines.schedule.night", entry.schedule.name],
        cwd=entry.folder,
        env={**os.environ, **entry.environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.strip():
                lines.append(line.rstrip())
    return process.returncode, list(lines)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
