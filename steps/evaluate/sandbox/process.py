"""Runs one program with its tests in two sandboxes that can say plain values to each other, and gives the verdict.

What protects the machine: new user, mount, process, network, IPC, host name and control group namespaces; a file
system with Python's standard library, read-only, and 16 MiB of memory to write in; no environment, no capabilities, no
new processes; limits on CPU, address space, threads, files and output; a filter of system calls; a wall clock.

What protects the result: the answer's code and the tests run in different sandboxes. The tests call the answer's
functions by messages and get values back; they compare them where the answer's code cannot reach, and the verdict
comes from their process alone. The answer's process sees the arguments of the calls and nothing else of the tests.

What can still be forged, and what cannot be seen:

- "ran", the program's own end without tests, is what the answer's process says of itself; ``passed`` is not.
- A test that only asks for truth (``assert f(1)``) is passed by any true value, as in plain Python.
- A test that calls a helper which the reference solution defines gets the answer's helper of that name. Methods and
  attributes of an object that the answer made are the answer's too; but whether such an object equals something is
  never the answer's to say, so a test that compares two of them fails.
- Answers that hold the expected values by heart pass, as everywhere.
- A hole in the kernel is a hole here.
"""

import json
import os
import selectors
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from steps.errors import DeviceError
from steps.evaluate.sandbox import namespaces
from steps.evaluate.sandbox.bounds import OUTPUT_BYTES
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sandbox.names import names_in
from steps.evaluate.sandbox.template import Start
from steps.evaluate.sandbox.verdict import Kind, Verdict
from steps.scratch import scratch

GRACE_SECONDS = 1.0  # for the last word of a process that has ended


@dataclass(frozen=True)
class Program:
    """A generated program, the data's tests for it, and the data's own solution, which says what is tested.

    ``preamble`` is the data's code that runs before the program, such as the imports of the module that the solution
    was taken from.
    """

    code: str
    tests: tuple[str, ...] = ()
    reference: str = ""
    preamble: str = ""


@dataclass
class _Side:
    """One of the two sandboxes: descriptors to and from it, and what it has said."""

    orders: int
    output: int
    reports: int
    said: bytes = b""
    printed: int = 0
    status: int | None = None
    cpu_seconds: float = 0.0


def run_program(program: Program, limits: Limits, start: Start) -> Verdict:
    """Run a program in its sandbox, and its tests in another.

    Args:
        program: what runs.
        limits: of it.
        start: of :func:`steps.evaluate.sandbox.template.template`.

    Raises:
        DeviceError: the kernel, or the container, does not let a process isolate itself.
    """
    names = names_in(program.tests, f"{program.preamble}\n\n{program.reference}")
    tests = {"tests": program.tests, "names": names.of_answer, "imports": names.imports, "modules": names.modules}
    with scratch("sandbox") as folder:
        to_tests, from_answer = os.pipe()
        to_answer, from_tests = os.pipe()
        verdict, from_judge = os.pipe()
        sides: list[_Side] = []
        try:
            try:
                for spec, theirs in (
                    ({"preamble": program.preamble, "code": program.code}, (to_answer, from_answer)),
                    (tests, (to_tests, from_tests, from_judge)),
                ):
                    sides.append(_started(spec, theirs, limits, str(folder), start))
            finally:
                for descriptor in (to_tests, from_answer, to_answer, from_tests, from_judge):
                    os.close(descriptor)
            return _watched(sides[0], sides[1], verdict, limits)
        finally:
            os.close(verdict)
            for side in sides:
                _finish(side)


def _started(spec: dict[str, Any], beyond: tuple[int, ...], limits: Limits, folder: str, start: Start) -> _Side:
    (theirs, orders), (output, printed), (reports, said) = os.pipe(), os.pipe(), os.pipe()
    try:
        start([theirs, printed, said, *beyond])
    finally:
        for descriptor in (theirs, printed, said):
            os.close(descriptor)
    side = _Side(orders, output, reports)
    memory = limits.memory_mib * 2**20
    order = {"isolated": limits.isolated, "folder": folder, "seconds": limits.seconds, "memory_bytes": memory}
    _tell(side, {**spec, **order})
    return side


def _tell(side: _Side, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    with suppress(BrokenPipeError):  # it failed, and its reports say why
        while data:
            data = data[os.write(side.orders, data) :]


def _watched(answer: _Side, judge: _Side, verdict: int, limits: Limits) -> Verdict:
    """Read all that the two say until there is a verdict, or a limit is passed."""
    deadline = time.monotonic() + limits.seconds
    judged, words = b"", dict[str, Any]()
    with selectors.DefaultSelector() as selector:
        selector.register(verdict, selectors.EVENT_READ, (judge, "verdict"))
        for side in (answer, judge):
            selector.register(side.output, selectors.EVENT_READ, (side, "output"))
            selector.register(side.reports, selectors.EVENT_READ, (side, "report"))
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                side, what = key.data
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                if what == "verdict":
                    judged += data
                elif what == "output":
                    side.printed += len(data)
                else:
                    _heard(side, data)
            words = _words(judged)
            if max(answer.printed, judge.printed) > OUTPUT_BYTES:
                return _verdict("output too large", f"more than {OUTPUT_BYTES // 1024} KiB", words, limits)
            if _is_over(words, answer, judge):
                return _from_words(words, answer, judge, limits)
            if words.get("kind") == "gone":
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
    if "kind" in words:
        return _from_words(words, answer, judge, limits)
    return _verdict("timed out", f"{limits.seconds:g} s of wall time", words, limits)


def _words(judged: bytes) -> dict[str, Any]:
    """What the tests' process has said in whole lines."""
    said: dict[str, Any] = {}
    for line in judged.split(b"\n")[:-1]:
        said |= json.loads(line)
    return said


def _is_over(words: dict[str, Any], answer: _Side, judge: _Side) -> bool:
    """There is a verdict; or the answer's end, where the verdict is that it ended; or the end of the tests' process."""
    if "kind" not in words:
        return judge.status is not None
    return answer.status is not None or words["kind"] != "gone"


def _heard(side: _Side, data: bytes) -> None:
    """What a sandbox says of itself on its way."""
    side.said += data
    while b"\n" in side.said:
        line, _, side.said = side.said.partition(b"\n")
        message = json.loads(line)
        if "left" in message:
            try:
                _tell(side, {"as_nobody": namespaces.map_users(message["left"])})
            except OSError as error:
                raise DeviceError(f"no isolation here: mapping users into a namespace: {error.strerror}") from error
        elif "failed" in message:
            raise DeviceError(f"no isolation here: {message['failed']}")
        else:
            side.status, side.cpu_seconds = message["status"], message["cpu_seconds"]


def _from_words(words: dict[str, Any], answer: _Side, judge: _Side, limits: Limits) -> Verdict:
    if words.get("kind", "gone") != "gone":
        return _verdict(words["kind"], words["detail"], words, limits)
    kind, detail = _how_it_ended(answer if answer.status is not None else judge, limits)
    return _verdict(kind, f"{words.get('detail', '')} {detail}", words, limits)


def _how_it_ended(side: _Side, limits: Limits) -> tuple[Kind, str]:
    status = side.status
    if status is None:
        return "ended early", "left the conversation"
    if status >= 0:
        return "ended early", f"exit status {status}"
    if -status == signal.SIGSYS:
        return "forbidden call", ""
    if -status in (signal.SIGKILL, signal.SIGXCPU):
        if side.cpu_seconds > limits.seconds - 1:
            return "timed out", f"{limits.seconds:g} s of CPU"
        return "out of memory", "killed by the kernel"
    return "exception", f"killed by {signal.Signals(-status).name}"


def _verdict(kind: Kind, detail: str, words: dict[str, Any], limits: Limits) -> Verdict:
    line = " ".join(detail.encode(errors="backslashreplace").decode().split())  # an answer's text may hold anything
    return Verdict(kind=kind, detail=line, ran=words.get("ran", False), isolated=limits.isolated)


def _finish(side: _Side) -> None:
    """End its program and see it gone; it ends where nobody holds its orders, so also where this process dies."""
    os.close(side.orders)
    os.close(side.output)
    while os.read(side.reports, 65536):
        pass
    os.close(side.reports)
