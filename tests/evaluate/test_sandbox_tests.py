"""Honest programs pass their tests in the sandbox, wrong ones fail: what tests of real data do."""

from pathlib import Path

import pytest

from steps.errors import DeviceError
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sandbox.names import names_in
from steps.evaluate.sandbox.process import Program
from steps.evaluate.sandbox.run import run_programs, usable_limits


@pytest.fixture(scope="module")
def limits() -> Limits:
    try:
        return usable_limits(Limits(), accept_risk=False)
    except DeviceError as error:
        pytest.skip(f"the kernel forbids isolation: {error}")


def honest() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Programs with their tests, by name."""
    text = Path(__file__).with_name("honest.txt").read_text(encoding="utf-8")
    found = {}
    for part in text.split("### ")[1:]:
        name, _, rest = part.partition("\n")
        code, *tests = rest.split("--- test\n")
        found[name] = (code, tuple(tests))
    return found


RIGHT = honest()


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_pass(name: str, limits: Limits) -> None:
    code, tests = RIGHT[name]
    verdict = run_programs([Program(code, tests, code)], limits)[0]
    assert (verdict.kind, verdict.detail) == ("passed", "")


@pytest.mark.parametrize(
    ("tests", "kind", "detail"),
    [
        (("assert f(1) == 3", "assert 1"), "wrong result", "test 1:"),
        (("assert f(1) == 2", "assert f(1) == 3, 'not three'"), "wrong result", "test 2: not three"),
        ((">>> f(1)\n3\n",), "wrong result", "test 1: f(1) gave '2', expected '3'"),
        ((">>> f('a')\n'a1'\n",), "exception", 'test 1: TypeError: can only concatenate str (not "int") to str'),
        (("assert f('a') == 2",), "exception", 'test 1: TypeError: can only concatenate str (not "int") to str'),
        (("assert g(1) == 2",), "exception", "test 1: NameError: name 'g' is not defined"),
        (("assert f(1 == 2",), "exception", "test 1: SyntaxError"),
    ],
)
def test_wrong_programs_fail_with_a_reason(tests: tuple[str, ...], kind: str, detail: str, limits: Limits) -> None:
    verdict = run_programs([Program("def f(x):\n    return x + 1\n", tests)], limits)[0]
    assert verdict.kind == kind
    assert verdict.detail.startswith(detail)
    assert verdict.ran


def test_a_program_without_tests_runs(limits: Limits) -> None:
    assert run_programs([Program("print(1)")], limits)[0].kind == "ran"
    failed = run_programs([Program("print(x)")], limits)[0]
    assert (failed.kind, failed.ran) == ("exception", False)
    assert failed.detail == "the program: NameError: name 'x' is not defined"


@pytest.mark.parametrize("text", ["\\ud800", "\\n\\x00 {} <b>", "x" * 10**6, "\\x1b[31m"])
def test_any_text_of_an_exception_can_be_kept(text: str, limits: Limits) -> None:
    for code in (f"raise ValueError('{text}')", f"def f():\n    raise ValueError('{text}')"):
        (verdict,) = run_programs([Program(code, ("f()",))], limits)
        assert verdict.kind == "exception"
        assert len(verdict.detail.encode()) < 2000
        assert len(verdict.detail.splitlines()) == 1


def test_a_time_out_in_a_test_is_no_time_out_of_the_program() -> None:
    verdict = run_programs([Program("def f():\n    while True: pass", ("f()",))], Limits(seconds=1.5))[0]
    assert (verdict.kind, verdict.ran) == ("timed out", True)


def test_only_what_the_tests_are_about_comes_from_the_answer() -> None:
    reference = "import math\nfrom os import path as p\n\ndef sum(a):\n    return 1\n\nLIMIT = 3\n"
    names = names_in(
        ["assert sum(1) == len([set()]) and g() and math.pi and p and LIMIT and json", "x = 1; x"], reference
    )
    assert names.of_answer == ("LIMIT", "g", "sum")
    assert names.imports == ("import math", "from os import path as p")
    assert names.modules == ("json",)
