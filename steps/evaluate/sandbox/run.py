"""Runs many programs, a few at a time, and finds out first whether this machine can isolate them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from steps.errors import DeviceError
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sandbox.process import Program, run_program
from steps.evaluate.sandbox.verdict import Verdict

PROBE = Program("def f(x):\n    return x + 1\n", ("assert f(1) == 2",))
PROBE_SECONDS = 30.0


def usable_limits(limits: Limits, accept_risk: bool) -> Limits:
    """The limits, without isolation where the kernel forbids it and the risk is accepted.

    Raises:
        DeviceError: it forbids it, and the risk is not accepted.
    """
    probe = replace(limits, seconds=PROBE_SECONDS)
    try:
        verdict = run_program(PROBE, probe)
    except DeviceError as error:
        if not accept_risk:
            raise DeviceError(
                f"generated code cannot be isolated on this machine ({error}); allow user namespaces (Docker: "
                "--security-opt seccomp=unconfined --security-opt apparmor=unconfined; Ubuntu: sysctl "
                "kernel.apparmor_restrict_unprivileged_userns=0), or set parameters.evaluation.sandbox.execute: false "
                "to run no generated code, or parameters.evaluation.sandbox.accept_risk: true to run it with limits alone"
            ) from error
        limits, verdict = replace(limits, isolated=False), run_program(PROBE, replace(probe, isolated=False))
    if not verdict.passed:
        raise DeviceError(
            f"a correct program fails in the sandbox ({verdict.kind}: {verdict.detail}); "
            f"raise parameters.evaluation.sandbox.memory_mib, now {limits.memory_mib}"
        )
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
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for verdict in pool.map(lambda program: run_program(program, limits), programs):
            verdicts.append(verdict)
            done(len(verdicts))
    return verdicts
