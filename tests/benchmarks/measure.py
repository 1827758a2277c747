"""Seconds and memory of a piece of work, in a process of its own."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

Work = Callable[[Path], dict[str, int]]


def measured(work: Work, path: Path) -> tuple[dict[str, int], float, float]:
    """What the work counted, seconds, and the largest anonymous memory above that after the imports, in GiB.

    The work runs in a process of its own. Memory-mapped files do not count: the kernel takes their pages back whenever
    it needs them.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (work, path))


def _measure(work: Work, path: Path) -> tuple[dict[str, int], float, float]:
    import datasets  # noqa: F401 - imports are not part of the measurement
    import great_expectations  # noqa: F401 - as above
    import pandas  # noqa: F401 - as above
    import psutil

    process, peak, done = psutil.Process(), 0, threading.Event()

    def anonymous() -> int:
        memory = process.memory_info()
        return int(memory.rss - memory.shared)

    before = anonymous()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.monotonic()
    counts = work(path)
    seconds = time.monotonic() - start
    done.set()
    watcher.join()
    return counts, seconds, max(peak - before, 0) / 2**30
