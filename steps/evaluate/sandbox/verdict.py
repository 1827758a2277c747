"""What became of one program."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "passed",
    "ran",
    "wrong result",
    "exception",
    "ended early",
    "timed out",
    "out of memory",
    "output too large",
    "forbidden call",
]
"""``passed``: all tests; ``ran``: to its end, without tests. ``wrong result``: an assertion or a doctest says so.
``ended early``: the process ended, as by ``os._exit`` or ``sys.exit``, before the tests did. ``forbidden call``: the
kernel killed it for a system call that only an attack makes."""


@dataclass(frozen=True)
class Verdict:
    """What became of one program.

    Args:
        kind: how it ended.
        detail: which test, which exception; one line.
        ran: the program itself, without its tests, came to its end.
        isolated: it ran in namespaces of its own.
    """

    kind: Kind
    detail: str
    ran: bool
    isolated: bool

    @property
    def passed(self) -> bool:
        """Whether all tests passed."""
        return self.kind == "passed"
