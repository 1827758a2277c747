"""Limits that a configuration sets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one program; ``bounds.py`` has those that are the same for every one.

    Args:
        seconds: of wall time for a program with all its tests; as many seconds of CPU for each of its two processes.
        memory_mib: address space of each of the two processes.
        isolated: with namespaces; without them, only with limits, a filter of system calls and a folder of its own.
    """

    seconds: float = 10.0
    memory_mib: int = 512
    isolated: bool = True
