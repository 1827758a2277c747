"""The process that becomes a sandbox: it leaves for new namespaces, and its only child runs the program.

Started by ``steps.evaluate.sandbox.process`` with ``python -I -S``. What it is told comes line by line on its standard
input; whatever ends that stream ends the program. Its standard error says how far it came, one JSON object a line.
"""

import fcntl
import json
import os
import resource
import select
import signal
import sys
from pathlib import Path
from typing import Any

from steps.evaluate.sandbox import namespaces, seccomp
from steps.evaluate.sandbox.answer import serve
from steps.evaluate.sandbox.bounds import DISK_BYTES, OPEN_FILES, TASKS
from steps.evaluate.sandbox.judge import judge, prepare
from steps.evaluate.sandbox.peer import Peer

FREE = 100
"""A descriptor above all others. The program has 0 to 2, 3 and 4 to the other process, the tests' 5 for the verdict."""


def main(library: list[str]) -> None:
    """Read what to do, isolate, run the program, report how its process ended.

    Args:
        library: ``sys.path`` of the standard library alone.
    """
    spec = json.loads(sys.stdin.buffer.readline())
    if "tests" in spec:
        prepare(spec)
    as_nobody = False
    try:
        if spec["isolated"]:
            namespaces.leave_for_new_namespaces()
            _report({"left": True})
            as_nobody = json.loads(sys.stdin.buffer.readline())["as_nobody"]
            namespaces.build_view(Path(spec["folder"]), library)
        else:
            os.chdir(spec["folder"])
    except (namespaces.IsolationError, OSError) as error:
        _report({"failed": str(error)})
        return
    pid = os.fork()
    if pid == 0:
        _become_program(spec, as_nobody)
    for descriptor in (1, *spec["descriptors"]):
        os.close(descriptor)
    _watch(pid)


def _become_program(spec: dict[str, Any], as_nobody: bool) -> None:
    """Close every door, run, and never return."""
    status = 1
    try:
        os.setsid()  # a signal to the own group must not reach the parent
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(1, 2)
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, FREE) for descriptor in spec["descriptors"]]
        for number, descriptor in enumerate(high, 3):
            os.dup2(descriptor, number)
        os.closerange(3 + len(high), 65536)
        os.environ.clear()
        os.environ.update(HOME=os.getcwd(), PYTHONDONTWRITEBYTECODE="1")
        sys.path[:] = [place for place in sys.path if Path(place).exists()]
        if spec["isolated"]:
            namespaces.drop_privileges(as_nobody)
        _limit(spec)
        if seccomp.is_available():
            seccomp.install()
        _run(spec)
        status = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace")[:2000])
    finally:
        os._exit(status)


def _run(spec: dict[str, Any]) -> None:
    peer = Peer(3, 4, {})
    if "code" in spec:
        serve(spec["code"], peer)
        return
    judge(spec, peer, lambda message: _say(5, message))


def _limit(spec: dict[str, Any]) -> None:
    seconds = max(1, round(spec["seconds"]))
    for kind, amount in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, spec["memory_bytes"]),
        (resource.RLIMIT_NPROC, TASKS),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, DISK_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(kind, (amount, amount))


def _watch(pid: int) -> None:
    """Wait for the program's end, or for the parent's word (or death), which ends it."""
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    poll.register(handle, select.POLLIN)
    if handle not in dict(poll.poll()):
        os.kill(pid, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    _report({"status": os.waitstatus_to_exitcode(status), "cpu_seconds": used.ru_utime + used.ru_stime})


def _report(message: dict[str, Any]) -> None:
    _say(2, message)


def _say(descriptor: int, message: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(message).encode() + b"\n")
