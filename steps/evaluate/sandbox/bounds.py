"""Limits that are the same for every program; limits.py has those that a configuration sets."""

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
