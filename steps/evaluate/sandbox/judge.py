"""The tests' process: runs the tests of the data, with the answer's functions as calls into the other process.

The answer's code never runs here and never sees a test: comparisons, assertions and doctests happen in this process,
on values. So patched builtins, ``assert`` machinery or ``sys.exit`` of the answer's process change nothing here.
"""

import builtins
import importlib
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from steps.evaluate.sandbox.peer import OF_ARGUMENTS, AnswerGone, Peer
from steps.evaluate.sandbox.session import first_failure


def judge(spec: dict[str, Any], peer: Peer, say: Callable[[dict[str, Any]], None]) -> None:
    """Say that the program ran, then what the tests say.

    Args:
        spec: ``tests``, texts of Python or doctest sessions; ``names`` that the answer defines; ``imports`` and
            ``modules`` that the tests use.
        peer: the end of the conversation with the answer.
        say: takes ``ran`` once the answer's program came to its end; then ``kind`` and ``detail`` (see
            ``steps.evaluate.sandbox.verdict``).
    """
    peer.allowed = OF_ARGUMENTS
    peer.show = lambda text: sys.stdout.write(text)
    try:
        started = peer.receive()
    except AnswerGone:
        say({"kind": "gone", "detail": "before its end"})
        return
    if "raised" in started:
        say(_failure(str(started.get("raised")), str(started.get("text")), "the program"))
        return
    if started.get("ready") is not True:
        say({"kind": "gone", "detail": "before its end"})
        return
    say({"ran": True})
    for number, test in enumerate(spec["tests"], 1):
        outcome = _outcome(test, spec, peer, f"test {number}")
        if outcome["kind"] != "passed":
            say(outcome)
            return
    say({"kind": "passed" if spec["tests"] else "ran", "detail": ""})


def _is_session(test: str) -> bool:
    return test.lstrip().startswith(">>>")


def _outcome(test: str, spec: dict[str, Any], peer: Peer, where: str) -> dict[str, Any]:
    try:
        wrong = _run(test, _namespace(spec, peer))
    except AnswerGone as error:
        return {"kind": "gone", "detail": f"{where}: {error}"}
    except AssertionError as error:
        return {"kind": "wrong result", "detail": f"{where}: {error}"[:500]}
    except BaseException as error:
        return _failure(type(error).__name__, str(error), where)
    if peer.gone:  # and the test caught it
        return {"kind": "gone", "detail": where}
    return {"kind": "wrong result", "detail": f"{where}: {wrong}"[:500]} if wrong else {"kind": "passed", "detail": ""}


def _failure(name: str, text: str, where: str) -> dict[str, Any]:
    if name == "MemoryError":
        return {"kind": "out of memory", "detail": where}
    if name in ("SystemExit", "KeyboardInterrupt"):
        return {"kind": "ended early", "detail": f"{where}: {name} {text}"[:500]}
    return {"kind": "exception", "detail": f"{where}: {name}: {text}"[:500]}


def _namespace(spec: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """A fresh module of tests: their own imports, and the answer's names; no other name of the answer counts."""
    module = types.ModuleType("tests")
    names = module.__dict__
    names["__builtins__"] = builtins
    for name in spec["modules"]:
        names[name] = importlib.import_module(name)
    for line in spec["imports"]:
        with suppress(ImportError):  # of a package that is not here: a test that needs it fails by name
            exec(line, names)  # noqa: S102 - the data's code, inside the sandbox
    for name in spec["names"]:
        try:
            names[name] = peer.ask("name", None, name)
        except KeyError:  # not defined: a test that needs it fails by name
            names.pop(name, None)
    return names


def _run(test: str, names: dict[str, Any]) -> str:
    """What was wrong with a doctest session, or nothing; a test of plain Python raises."""
    if not _is_session(test):
        exec(compile(test, "test.py", "exec", dont_inherit=True), names)  # noqa: S102 - the data's code, in the sandbox
        return ""
    return first_failure(test, names)
