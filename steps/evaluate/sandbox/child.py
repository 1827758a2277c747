"""The processes of the sandbox: a template forks, and each fork leaves for new namespaces and runs one program.

Started by ``steps.evaluate.sandbox.template``: a Python that has imported all that it needs, so that a program costs a
fork and no start-up. The template sees descriptors and never a program or a test, so that no answer can find another's
in its memory. A fork is told what to do line by line on its standard input; whatever ends that stream ends the program.
Its standard error says how far it came, one JSON object a line.
"""

import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from steps.evaluate.sandbox import namespaces, seccomp
from steps.evaluate.sandbox.answer import serve
from steps.evaluate.sandbox.bounds import DISK_BYTES, OPEN_FILES, TASKS
from steps.evaluate.sandbox.judge import judge
from steps.evaluate.sandbox.peer import Peer

MOST_DESCRIPTORS = 8

FREE = 100
"""A descriptor above all others. The program has 0 to 2, 3 and 4 to the other process, the tests' 5 for the verdict."""


def main(library: list[str]) -> None:
    """Fork for each message, which brings the fork's descriptors; end where the other end is closed.

    Args:
        library: ``sys.path`` of the standard library alone.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork: its standard error says how it ended
    channel = socket.socket(fileno=0)
    while True:
        word, descriptors, _, _ = socket.recv_fds(channel, 1, MOST_DESCRIPTORS)
        if not word:
            return
        if os.fork() == 0:
            _become_sandbox(descriptors, library)
        for descriptor in descriptors:
            os.close(descriptor)


def _become_sandbox(descriptors: list[int], library: list[str]) -> None:
    """Read what to do, isolate, run the program, report how its process ended, and never return."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
            os.close(descriptor)
        _isolate_and_run(descriptors[3:], library)
    except BaseException as error:
        _report({"failed": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _isolate_and_run(descriptors: list[int], library: list[str]) -> None:
    orders = open(0, "rb", closefd=False)  # noqa: SIM115 - the process ends before it could be closed
    spec = json.loads(orders.readline())
    as_nobody = False
    if spec["isolated"]:
        namespaces.leave_for_new_namespaces()
        _report({"left": os.getpid()})
        as_nobody = json.loads(orders.readline())["as_nobody"]
        namespaces.build_view(Path(spec["folder"]), library)
    else:
        os.chdir(spec["folder"])
    pid = os.fork()
    if pid == 0:
        _become_program(spec, descriptors, as_nobody)
    for descriptor in (1, *descriptors):
        os.close(descriptor)
    _watch(pid)


def _become_program(spec: dict[str, Any], descriptors: list[int], as_nobody: bool) -> None:
    """Close every door, run, and never return."""
    try:
        os.setsid()  # a signal to the own group must not reach the parent
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, FREE) for descriptor in descriptors]
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
    except BaseException as error:
        _report({"failed": f"{type(error).__name__}: {error}"})
        os._exit(1)
    os.dup2(1, 2)  # the last door: until here it was this project's to report
    try:
        _run(spec)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace")[:2000])
    finally:
        os._exit(0)


def _run(spec: dict[str, Any]) -> None:
    peer = Peer(3, 4, {})
    if "code" in spec:
        serve(spec["preamble"], spec["code"], peer)
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
