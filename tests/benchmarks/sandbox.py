"""Seconds for harmless programs in the sandbox, each with two tests.

Run by ``make bench``. Beside it stand the same programs in plain Python processes, started as many at a time, which
isolate nothing.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sandbox.process import Program
from steps.evaluate.sandbox.run import run_programs, usable_limits


def harmless(number: int) -> Program:
    """A program that differs from every other."""
    code = f"import math\n\ndef f(x):\n    return math.floor(x) + {number}\n"
    return Program(code, (f"assert f(1.5) == {number + 1}", f"assert f(-1) == {number - 1}"), code)


def main() -> None:
    """Print both times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=500)
    programs = [harmless(number) for number in range(parser.parse_args().programs)]
    limits = usable_limits(Limits(seconds=30), accept_risk=False)
    cores = len(os.sched_getaffinity(0))

    start = time.monotonic()
    passed = sum(verdict.passed for verdict in run_programs(programs, limits))
    sandboxed = time.monotonic() - start

    def plainly(program: Program) -> bool:
        code = "\n".join([program.code, *program.tests])
        command = [sys.executable, "-I", "-S", "-c", code]
        return subprocess.run(command, check=False).returncode == 0

    start = time.monotonic()
    with ThreadPoolExecutor(cores) as pool:
        plain_passed = sum(pool.map(plainly, programs))
    plain = time.monotonic() - start

    print(f"{len(programs)} programs with their tests, {cores} at a time")
    print(f"  in the sandbox   {sandboxed:6.1f} s, {passed} passed")
    print(f"  plain processes  {plain:6.1f} s, {plain_passed} passed")


if __name__ == "__main__":
    main()
