"""The processes that share some work, as a test sees them, and what it does to them meanwhile."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil


def workers(module: str) -> list[psutil.Process]:
    """The processes of a module that this process has started, by their ranks."""
    found = [child for child in psutil.Process().children(recursive=True) if module in child.cmdline()]
    return sorted(found, key=lambda child: int(child.environ()["RANK"]))


@contextmanager
def when(happened: Callable[[], bool], act: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as something has happened."""

    def watch() -> None:
        while not ended.wait(0.005):
            if happened():
                act()
                return

    ended = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
