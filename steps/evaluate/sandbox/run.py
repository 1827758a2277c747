"""Runs many programs, a few at a time, and finds out first whether this machine can isolate them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from steps.errors import DeviceError
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sandbox.process import Program, run_program
from steps.evaluate.sandbox.template import template
from steps.evaluate.sandbox.verdict import Verdict

PROBE = Program("")


def usable_limits(limits: Limits, accept_risk: bool) -> Limits:
    """The limits, without isolation where the kernel forbids it and the risk is accepted.

    Raises:
        DeviceError: it forbids it, and the risk is not accepted.
    """
    try:
        run_programs([PROBE], limits)
    except DeviceError as error:
        if accept_risk:
            return replace(limits, isolated=False)
        raise DeviceError(
            f"generated code cannot be isolated on this machine ({error}); allow user namespaces (Docker: "
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined; Ubuntu: sysctl "
            "kernel.apparmor_restrict_unprivileged_userns=0), or set parameters.evaluation.sandbox.execute: "
            "where_isolated or never to run none, or accept_risk: true there to run it with limits alone"
        ) from error
    return limits


def run_programs(
    programs: Sequence[Program], limits: Limits, done: Callable[[int], None] = lambda count: None
) -> list[Verdict]:
    """A verdict for each program, in their order; as many run at a time as this process may use cores.

    Args:
        programs: what to run.
        limits: of each.
        done: gets the number of programs that have a verdict, as it grows.

    Raises:
        DeviceError: the kernel does not let a process isolate itself (see :func:`usable_limits`).
    """
    verdicts = []
    with template() as start, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        waiting = [pool.submit(run_program, program, limits, start) for program in programs]
        try:
            for future in waiting:
                verdicts.append(future.result())
                done(len(verdicts))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C the others need not run
    return verdicts
