"""Runs generated answers, and the tests of the rows that carry them, in the sandbox."""

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset

from steps.errors import DeviceError
from steps.evaluate.grade import code_of
from steps.evaluate.params import SandboxParameters
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sandbox.process import Program
from steps.evaluate.sandbox.run import run_programs, usable_limits
from steps.evaluate.sandbox.verdict import Verdict
from steps.progress import Progress

RUNS, PASSES = "runs", "passes its tests"


@dataclass(frozen=True)
class Execution:
    """Verdicts of every row, in the order of the rows.

    Args:
        sides: for each model, its answers' verdicts.
        references: of the rows' own solutions under the rows' tests; ``None`` where a row has no test.
        isolated: everything ran in namespaces of its own.
    """

    sides: list[list[Verdict]]
    references: list[Verdict | None]
    isolated: bool

    @property
    def tested(self) -> list[int]:
        """Rows whose tests say something here: their own solution passes them."""
        return [index for index, verdict in enumerate(self.references) if verdict is not None and verdict.passed]


def limits_here(sandbox: SandboxParameters) -> Limits | None:
    """What a program may use on this machine; ``None`` where none is to be run.

    Raises:
        DeviceError: nothing can be isolated here, the risk is not accepted, and code is to be run always.
    """
    if sandbox.execute == "never":
        return None
    try:
        return usable_limits(Limits(sandbox.seconds, sandbox.memory_mib), sandbox.accept_risk)
    except DeviceError as error:
        if sandbox.execute == "always":
            raise
        print(f"  evaluate: no generated code is run: {error}", flush=True)
        return None


def execute(rows: Dataset, sides: Sequence[Sequence[str]], limits: Limits) -> Execution:
    """Run each row's own solution, then every side's answer to it.

    An answer meets the row's tests only if the row's own solution passes them here: a test that nothing can pass, since
    it needs a package or the network, says nothing about a model.

    Args:
        rows: columns ``completion``, ``tests`` and ``preamble`` (what runs before an answer); of evaluation sets also
            ``test_setup``, what stands before each test.
        sides: for each model, its answers in the order of the rows.
        limits: of each program.
    """
    setups = list(rows["test_setup"]) if "test_setup" in rows.column_names else [""] * len(rows)
    tests = [
        tuple(f"{setup}\n{test}" if setup else test for test in row_tests)
        for setup, row_tests in zip(setups, rows["tests"], strict=True)
    ]
    references, preambles = list(rows["completion"]), list(rows["preamble"])
    known = [index for index, row_tests in enumerate(tests) if row_tests]
    own = [Program(references[index], tests[index], references[index], preambles[index]) for index in known]
    found = dict(zip(known, _verdicts(own, "programs, the data's own", limits), strict=True))
    programs = [
        Program(code_of(answer), tests[index], references[index], preambles[index])
        if index in found and found[index].passed
        else Program(code_of(answer), preamble=preambles[index])
        for answers in sides
        for index, answer in enumerate(answers)
    ]
    verdicts = _verdicts(programs, "programs, the models'", limits)
    return Execution(
        sides=[verdicts[start : start + len(rows)] for start in range(0, len(verdicts), len(rows))],
        references=[found.get(index) for index in range(len(rows))],
        isolated=limits.isolated,
    )


def _verdicts(programs: Sequence[Program], work: str, limits: Limits) -> list[Verdict]:
    """Equal programs run once."""
    different = list(dict.fromkeys(programs))
    with Progress(work, len(different)) as progress:
        found = run_programs(different, limits, progress.advance)
    by_program = dict(zip(different, found, strict=True))
    return [by_program[program] for program in programs]
