"""The answer's process: runs the generated code as a program of its own, then lets the tests call what it defined."""

import builtins
import sys
import types
from typing import Any

from steps.evaluate.sandbox.peer import OF_ANSWERS, AnswerGone, Output, Peer


def serve(preamble: str, code: str, peer: Peer) -> None:
    """Run the code, say how that ended, and do what the tests ask until they stop asking.

    Args:
        preamble: code of the data's that runs first, in the same module.
        code: the generated program.
        peer: the end of the conversation with the tests.
    """
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    sys.argv = ["answer"]
    output = Output()
    sys.stdout = output
    peer.allowed = {**OF_ANSWERS, "name": lambda _, name: module.__dict__[name]}
    peer.printed = output.taken
    try:
        for text, file in (
            (preamble, "preamble.py"),
            (code, "answer.py"),
        ):  # apart: an answer may begin with __future__
            exec(compile(text, file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what this is for
    except BaseException as error:  # what ended the program is reported, be it sys.exit
        peer.send(_ended(error))
        return
    peer.send({"ready": True})
    output.taken()
    while message := _next(peer):
        peer.answer(message)


def _ended(error: BaseException) -> dict[str, Any]:
    try:
        text = str(error)[:500]
    except Exception:  # a text of the code's own making
        text = ""
    return {"ready": False, "raised": type(error).__name__, "text": text}


def _next(peer: Peer) -> dict[str, Any]:
    try:
        return peer.receive()
    except AnswerGone:  # here it is the tests that have ended
        return {}
