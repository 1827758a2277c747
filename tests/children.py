"""Child processes of tests: forked from one that has imported what most of them need and computed nothing.

There is one such process for each process that runs tests, and whoever starts it first decides what it imports: so all
children come from here.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerContext

IMPORTED = ["tests.train.killed", "steps.train.trainer", "steps.evaluate.evaluate", "steps.merge.merge", "bitsandbytes"]
"""Not ZenML, which looks at its configuration when it is imported."""


def children() -> ForkServerContext:
    """What starts them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def exit_code_of(target: Callable[..., object], *arguments: object) -> int:
    """Call the function in a child, and wait for its end; ``-SIGKILL`` where it was killed."""
    child = children().Process(target=target, args=arguments)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode
