"""What one program may use, and where it may not look."""

from dataclasses import dataclass

DISK_BYTES = 16 * 2**20
"""Size of the only writable place, a file system in memory."""

INODES = 256
"""Files and folders in the writable place."""

OUTPUT_BYTES = 256 * 2**10
"""Of standard output and error together; a program that writes more is stopped."""

TASKS = 32
"""Threads; no process may be started at all."""

OPEN_FILES = 64

FRAME_BYTES = 2 * 2**20
"""Of one message between the answer's process and the tests' process."""


@dataclass(frozen=True)
class Limits:
    """Limits of one program that a configuration sets.

    Args:
        seconds: of wall time for a program with all its tests; as many seconds of CPU for each of its two processes.
        memory_mib: address space of each of the two processes.
        isolated: with namespaces; without them, only with limits, a filter of system calls and a folder of its own.
    """

    seconds: float = 10.0
    memory_mib: int = 512
    isolated: bool = True
