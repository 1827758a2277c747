"""The conversation between the tests' process and the answer's process: one JSON object a line, one call at a time.

The tests ask for the answer's functions by name and call them; while a call runs, the answer may call functions that
it was given as arguments, take the next item of such an iterator, or ask whether such an object is true, and nothing
else of theirs.
"""

import builtins
import io
import json
import operator
import os
from collections.abc import Callable
from typing import Any

from steps.evaluate.sandbox.bounds import FRAME_BYTES, OUTPUT_BYTES
from steps.evaluate.sandbox.values import decode, encode


def _call(function: Any, *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)


OF_ARGUMENTS: dict[str, Callable[..., Any]] = {"call": _call, "next": next, "iter": iter, "bool": bool}
OF_ANSWERS: dict[str, Callable[..., Any]] = {
    **OF_ARGUMENTS,
    "getattr": getattr,
    "setattr": setattr,
    "repr": repr,
    "str": str,
    "len": len,
    "abs": abs,
    "reversed": reversed,
    "pow": pow,
    "enter": lambda context: context.__enter__(),
    "exit": lambda context, *_: context.__exit__(None, None, None),
    "and": operator.and_,
    "or": operator.or_,
    **{
        name: getattr(operator, name)
        for name in ["getitem", "setitem", "delitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "neg", "xor"]
    },
}
"""What one side may do to an object of the other."""


class AnswerGone(BaseException):
    """The answer's process ended, was stopped, or said what no answer's process says; no test may catch it."""


class Output(io.StringIO):
    """What the answer prints, up to a limit; more goes straight to the pipe, which the parent watches."""

    def write(self, text: str) -> int:
        """Keep the text."""
        if self.tell() + len(text) > OUTPUT_BYTES:
            os.write(1, text.encode(errors="replace"))
        return super().write(text[:OUTPUT_BYTES])

    def taken(self) -> str:
        """What was written since the last time."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


class Peer:
    """One end of the conversation."""

    def __init__(self, read: int, write: int, allowed: dict[str, Callable[..., Any]]) -> None:
        self.lines = os.fdopen(read, "rb")
        self.write = write
        self.allowed = allowed
        self.objects: list[Any] = []
        self.gone = False
        self.show: Callable[[str], Any] = lambda text: None
        self.printed: Callable[[], str] = lambda: ""

    def send(self, message: dict[str, Any]) -> None:
        """Send one message.

        Raises:
            ValueError: it is too large.
            AnswerGone: nobody listens any more.
        """
        data = json.dumps(message).encode() + b"\n"
        if len(data) > FRAME_BYTES:
            raise ValueError(f"a value takes more than {FRAME_BYTES:,} bytes")
        try:
            while data:
                data = data[os.write(self.write, data) :]
        except BrokenPipeError:
            raise self._gone("no one who listens") from None

    def receive(self) -> dict[str, Any]:
        """The next message.

        Raises:
            AnswerGone: there is none, or it is not one.
        """
        line = self.lines.readline(FRAME_BYTES)
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise self._gone("no message" if not line else "a message that is none") from None
        if not isinstance(message, dict):
            raise self._gone("a message that is none")
        return message

    def ask(self, operation: str, target: Any, *arguments: Any, **named: Any) -> Any:
        """Let the other side do something to one of its objects, or, with a name as the target, look it up."""
        message = {
            "do": operation,
            "on": self._encoded(target),
            "arguments": [self._encoded(argument) for argument in arguments],
            "named": {name: self._encoded(argument) for name, argument in named.items()},
        }
        self.send(message)
        while "do" in (reply := self.receive()):
            self.answer(reply)
        try:
            self.show(str(reply.get("printed", "")))
            for argument, after in zip(arguments, reply.get("after", []), strict=False):
                _update(argument, self._decoded(after))
            if "raised" in reply:
                raise _exception(reply["raised"], str(reply.get("text", "")))
            return self._decoded(reply["value"])
        except (KeyError, IndexError, AttributeError, RecursionError) as error:
            if "raised" in reply:
                raise
            raise self._gone("a message that is none") from error

    def answer(self, message: dict[str, Any]) -> None:
        """Do what the other side asks."""
        arguments: list[Any] = []
        try:
            arguments = [self._decoded(argument) for argument in message["arguments"]]
            named = {name: self._decoded(argument) for name, argument in message["named"].items()}
            value = self._allowed(message["do"])(self._decoded(message["on"]), *arguments, **named)
            after = [self._encoded(argument if _changes(argument) else None) for argument in arguments]
            reply = {"value": self._encoded(value), "after": after, "printed": self.printed()}
        except AnswerGone:
            raise
        except BaseException as error:  # sys.exit in a function is told, not done
            bases = [base.__name__ for base in type(error).__mro__]
            after = [self._encoded(argument if _changes(argument) else None) for argument in arguments]
            reply = {"raised": bases, "text": _text(error), "after": after, "printed": self.printed()}
        self.send(reply)

    def _allowed(self, operation: str) -> Callable[..., Any]:
        if operation not in self.allowed:
            kind = AttributeError if operation == "getattr" else TypeError  # so hasattr says that there is none
            raise kind(f"an answer has no access to {operation} of an object that the tests made")
        return self.allowed[operation]

    def _gone(self, what: str) -> AnswerGone:
        self.gone = True
        return AnswerGone(what)

    def _encoded(self, value: Any) -> Any:
        return encode(value, self._keep)

    def _decoded(self, message: Any) -> Any:
        return decode(message, self.objects.__getitem__, self.ask)

    def _keep(self, value: Any) -> int:
        self.objects.append(value)
        return len(self.objects) - 1


def _text(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:  # a text of the answer's own making
        return ""


def _changes(value: Any) -> bool:
    return type(value) in (list, dict, set, bytearray)


def _update(argument: Any, after: Any) -> None:
    """Make an argument what the call made of it."""
    if type(argument) is not type(after) or not _changes(argument):
        return
    argument.clear()
    if isinstance(argument, (list, bytearray)):
        argument.extend(after)
    else:
        argument.update(after)


def _exception(names: Any, text: str) -> Exception:
    """The exception of the other side: of its own built-in type, else a new type below the nearest built-in one."""
    names = [str(name) for name in names] if isinstance(names, list) and names else ["Exception"]
    if "Exception" not in names:  # SystemExit and the like must not end the tests
        return _new(names[0], Exception)(text)
    known = [found for name in names if isinstance(found := getattr(builtins, name, None), type)]
    base = next((kind for kind in known if issubclass(kind, Exception)), Exception)
    kind = base if base.__name__ == names[0] else _new(names[0], base)
    try:
        return kind(text)
    except TypeError:  # such as UnicodeDecodeError, which wants five arguments
        return _new(names[0], Exception)(text)


def _new(name: str, base: type[Exception]) -> type[Exception]:
    return type(name, (base,), {"__module__": "__main__"})  # doctests show no module then
