"""Runs generated answers, and the tests of the rows that carry them, in the sandbox."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
SAYS_NOTHING = "a function that does nothing passes them too"


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
        """As :func:`tested_rows`."""
        return tested_rows(self.references)


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


def references_of(rows: Dataset, limits: Limits) -> list[Verdict | None]:
    """Verdicts of the rows' own solutions under the rows' tests; ``None`` where a row has no test.

    Tests that functions which do nothing pass too, such as a doctest that is skipped, are said to have run, not passed.

    Args:
        rows: columns ``completion``, ``tests`` and ``preamble`` (what runs before an answer); of evaluation sets also
            ``test_setup``, what stands before each test.
        limits: of each program.
    """
    own = _own_programs(rows)
    known = [index for index, program in enumerate(own) if program.tests]
    programs = [own[index] for index in known] + [_doing_nothing(own[index]) for index in known]
    verdicts = _verdicts(programs, "programs, the data's own", limits)
    pairs = zip(known, verdicts[: len(known)], verdicts[len(known) :], strict=True)
    found = {
        index: replace(verdict, kind="ran", detail=SAYS_NOTHING) if verdict.passed and nothing.passed else verdict
        for index, verdict, nothing in pairs
    }
    return [found.get(index) for index in range(len(rows))]


def tested_rows(references: Sequence[Verdict | None]) -> list[int]:
    """Rows whose tests say something here: their own solution passes them, and not just anything."""
    return [index for index, verdict in enumerate(references) if verdict is not None and verdict.passed]


def execute(
    rows: Dataset, sides: Sequence[Sequence[str]], references: list[Verdict | None], limits: Limits
) -> Execution:
    """Run every side's answer to each row.

    An answer meets the row's tests only if the row's own solution passes them here: a test that nothing can pass, since
    it needs a package or the network, says nothing about a model; nor does one that anything passes.

    Args:
        rows: as :func:`references_of` takes them.
        sides: for each model, its answers in the order of the rows.
        references: of the rows, from :func:`references_of`.
        limits: of each program.
    """
    own, tested = _own_programs(rows), set(tested_rows(references))
    programs = [
        replace(own[index], code=code_of(answer))
        if index in tested
        else Program(code_of(answer), preamble=own[index].preamble)
        for answers in sides
        for index, answer in enumerate(answers)
    ]
    verdicts = _verdicts(programs, "programs, the models'", limits)
    return Execution(
        sides=[verdicts[start : start + len(rows)] for start in range(0, len(verdicts), len(rows))],
        references=references,
        isolated=limits.isolated,
    )


def passed_samples(rows: Dataset, sides: Sequence[Sequence[Sequence[str]]], limits: Limits) -> list[list[int]]:
    """For each model and row, how many of the row's sampled answers pass its tests.

    Args:
        rows: those whose tests count, as :func:`references_of` takes them.
        sides: for each model, the answers to each row.
        limits: of each program.
    """
    own = _own_programs(rows)
    programs = [
        replace(own[index], code=code_of(answer))
        for side in sides
        for index, answers in enumerate(side)
        for answer in answers
    ]
    verdicts = iter(_verdicts(programs, "programs, sampled", limits))
    return [[sum(next(verdicts).passed for _ in answers) for answers in side] for side in sides]


def _own_programs(rows: Dataset) -> list[Program]:
    """Each row's own solution with its tests."""
    setups = list(rows["test_setup"]) if "test_setup" in rows.column_names else [""] * len(rows)
    parts = zip(rows["completion"], rows["tests"], setups, rows["preamble"], strict=True)
    return [
        Program(solution, tuple(f"{setup}\n{test}" if setup else test for test in tests), solution, preamble)
        for solution, tests, setup, preamble in parts
    ]


def _doing_nothing(program: Program) -> Program:
    """The solution's functions by name, without what they do."""
    try:
        body = ast.parse(program.code).body
    except SyntaxError:  # such a solution passes nothing either
        body = []
    names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return replace(program, code="\n".join(f"def {name}(*_, **__): pass" for name in names))


def _verdicts(programs: Sequence[Program], work: str, limits: Limits) -> list[Verdict]:
    """Equal programs run once."""
    different = list(dict.fromkeys(programs))
    with Progress(work, len(different)) as progress:
        found = run_programs(different, limits, progress.advance)
    by_program = dict(zip(different, found, strict=True))
    return [by_program[program] for program in programs]
