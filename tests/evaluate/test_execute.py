"""From generated answers to grades, verdicts and the page."""

import math
from itertools import combinations

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steps.errors import DeviceError
from steps.evaluate.evaluate import evaluate_adapter
from steps.evaluate.execute import execute, limits_here, references_of
from steps.evaluate.grade import code_of
from steps.evaluate.params import EvaluationParameters, SandboxParameters
from steps.evaluate.report import EvaluationReport, Verdicts
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sets import problem_of
from steps.evaluate.statistics import compare_shares, pass_at_k
from tests.tiny_run import TinyRun

ADD = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module")
def limits() -> Limits:
    try:
        found = limits_here(SandboxParameters())
    except DeviceError as error:
        pytest.skip(f"the kernel forbids isolation: {error}")
    assert found is not None
    return found


def test_only_tests_that_the_own_solution_passes_count(limits: Limits) -> None:
    rows = Dataset.from_dict(
        {
            "completion": [ADD, "def head(x):\n    return helper(x)\n", "x = 1\n", ADD],
            "tests": [["assert add(1, 2) == 3"], [">>> head([1])\n1\n"], [], ["assert add(1, 2) == 3"]],
            "preamble": [""] * 4,
        }
    )
    base = ["def add(a, b):\n    return a - b\n", "def head(x):\n    return x[0]\n", "x = y\n", "Sure!"]
    tuned = [ADD, "def head(x):\n    return x[0]\n", "x = 2\n", f"Here:\n```python\n{ADD}```"]
    found = execute(rows, [base, tuned], references_of(rows, limits), limits)
    assert found.tested == [0, 3]
    assert [verdict and verdict.kind for verdict in found.references] == ["passed", "exception", None, "passed"]
    assert [verdict.kind for verdict in found.sides[0]] == ["wrong result", "ran", "exception", "exception"]
    assert [verdict.kind for verdict in found.sides[1]] == ["passed", "ran", "ran", "passed"]
    assert [verdict.ran for verdict in found.sides[0]] == [True, True, False, False]
    assert found.isolated


@pytest.mark.parametrize(
    "test", [">>> add(1, 2)  # doctest: +SKIP\n4\n", ">>> total = add(1, 2)\n", "add(1, 2)", "True"]
)
def test_tests_that_anything_passes_do_not_count(test: str, limits: Limits) -> None:
    rows = Dataset.from_dict({"completion": [ADD], "tests": [[test]], "preamble": [""]})
    references = references_of(rows, limits)
    found = execute(rows, [[ADD]], references, limits)
    assert found.tested == []
    assert references[0] is not None
    assert (references[0].kind, references[0].detail) == ("ran", "a function that does nothing passes them too")
    assert found.sides[0][0].kind == "ran"


def test_the_set_up_of_a_set_stands_before_its_tests(limits: Limits) -> None:
    """As MBPP's test_setup_code; the answer's process does not see it."""
    rows = Dataset.from_dict(
        {
            "completion": [ADD],
            "tests": [["assert add(base, 2) == 5", "assert base == 3"]],
            "test_setup": ["base = 3"],
            "preamble": [""],
        }
    )
    found = execute(rows, [[ADD], ["def add(a, b):\n    return a + base\n"]], references_of(rows, limits), limits)
    assert found.tested == [0]
    assert [side[0].kind for side in found.sides] == ["passed", "exception"]


def test_a_preamble_runs_before_the_answer_and_passes_no_test_by_itself(limits: Limits) -> None:
    needs = "from __future__ import annotations\n\ndef root(x: float) -> float:\n    return helper(math.sqrt(x))\n"
    rows = Dataset.from_dict(
        {
            "completion": [needs],
            "tests": [[">>> root(4)\n3.0\n>>> helper(1)\n2\n"]],
            "preamble": ["import math\n\ndef helper(x):\n    return x + 1\n"],
        }
    )
    found = execute(
        rows,
        [[needs], ["import math\n"], ["def root(x):\n    return x ** 0.5 + 1\n"]],
        references_of(rows, limits),
        limits,
    )
    assert found.tested == [0]
    assert [side[0].kind for side in found.sides] == ["passed", "exception", "passed"]
    assert found.sides[1][0].detail == "test 1: NameError: name 'root' is not defined"


def test_a_humaneval_problem_is_passed_by_its_solution(limits: Limits) -> None:
    problem = problem_of(
        {
            "task_id": "one",
            "prompt": 'def double(x):\n    """Twice x."""\n',
            "canonical_solution": "    return 2 * x\n",
            "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0\n",
            "entry_point": "double",
        },
        "line 1",
    )
    rows = Dataset.from_dict({"completion": [problem.reference], "tests": [list(problem.tests)], "preamble": [""]})
    wrong = f"{problem.prefix}\n    return x + 2"
    found = execute(rows, [[problem.reference], [wrong]], references_of(rows, limits), limits)
    assert [side[0].kind for side in found.sides] == ["passed", "wrong result"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("Sure:\n```python\nx = 1\n```\nand\n```\ny = 2\n```", "x = 1\n\ny = 2\n"),
        ("```\nx = 1", "x = 1"),
        ("x = '''\n```\ny\n```\n'''", "x = '''\n```\ny\n```\n'''"),
        ("Only prose", "Only prose"),
        ("", ""),
    ],
)
def test_the_program_in_an_answer(text: str, code: str) -> None:
    assert code_of(text) == code


@pytest.fixture(scope="module")
def report(tiny_run: TinyRun, limits: Limits) -> EvaluationReport:
    """Of rows that carry tests which their own solutions pass."""
    rows = tiny_run.examples["test"].select(range(4))
    names = [code.removeprefix("def ").partition("(")[0] for code in rows["completion"]]
    tests = [[f"assert {name}(1) == 1 + {name.rpartition('_')[2]}"] for name in names[:3]] + [["assert False"]]
    rows = rows.remove_columns("tests").add_column("tests", tests)
    parameters = EvaluationParameters(max_prompts=4, max_new_tokens=24)
    return evaluate_adapter(rows, tiny_run.model, tiny_run.adapter, tiny_run.tokenizer, parameters)


def test_the_report_keeps_every_verdict(report: EvaluationReport) -> None:
    verdicts = report.verdicts
    assert verdicts is not None
    assert (verdicts.isolated, verdicts.programs, verdicts.with_tests, verdicts.tested) == (True, 8, 4, 3)
    assert [reason for _, reason in verdicts.untested] == ["wrong result: test 1:"]
    assert sum(verdicts.base.values()) == sum(verdicts.tuned.values()) == 4
    runs, passes = report.figure("runs"), report.figure("passes its tests")
    assert (runs.rows, passes.rows) == (4, 3)
    for sample in report.samples:
        assert sample.tuned_verdict is not None
        assert sample.tuned_grades["runs"] == sample.tuned_verdict.ran
    assert sum(sample.tuned_grades.get("passes its tests", False) for sample in report.samples) == 3 * passes.tuned
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report
    assert report.metadata()["isolated"] is True


def test_the_page_shows_failures_and_what_changed(report: EvaluationReport) -> None:
    page = report.html()
    for heading in ("What became of the programs", "From pass to fail", "From fail to pass", "Tests that say nothing"):
        assert heading in page
    assert "isolated in namespaces" in page
    assert "not isolated" not in page
    verdicts = Verdicts.model_validate(report.verdicts).model_copy(update={"isolated": False})
    assert "not isolated" in report.model_copy(update={"verdicts": verdicts}).html()


def test_nothing_runs_where_nothing_may(tiny_run: TinyRun) -> None:
    parameters = EvaluationParameters(max_prompts=2, max_new_tokens=4, sandbox=SandboxParameters(execute="never"))
    report = evaluate_adapter(
        tiny_run.examples["test"], tiny_run.model, tiny_run.adapter, tiny_run.tokenizer, parameters
    )
    assert report.verdicts is None
    assert "runs" not in [figure.name for figure in report.figures]
    assert "What became of the programs" not in report.html()


def test_where_nothing_can_be_isolated(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The refusal is real elsewhere (test_sandbox.py); here it is what the parameter makes of it."""

    def refuse(*_: object) -> None:
        raise DeviceError("no namespaces")

    monkeypatch.setattr("steps.evaluate.execute.usable_limits", refuse)
    assert limits_here(SandboxParameters(execute="where_isolated")) is None
    assert "no generated code is run: no namespaces" in capsys.readouterr().out
    with pytest.raises(DeviceError, match="no namespaces"):
        limits_here(SandboxParameters())


def test_a_risk_needs_something_that_runs() -> None:
    with pytest.raises(ValidationError, match="leave one of them out"):
        SandboxParameters(execute="never", accept_risk=True)


def test_shares_have_their_counts_and_intervals() -> None:
    """Wilson's interval of 8 in 10 as published: 0.490 to 0.943."""
    figure = compare_shares("runs", [True] * 8 + [False] * 2, [True] * 10, 0.95)
    assert figure.rows == 10
    assert figure.base_interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert figure.tuned_interval is not None
    assert figure.tuned_interval[1] == 1


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_draws_with_one_that_passes(samples: int, data: st.DataObject) -> None:
    passed, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    draws = list(combinations([True] * passed + [False] * (samples - passed), k))
    assert math.isclose(pass_at_k(samples, passed, k), sum(map(any, draws)) / len(draws), abs_tol=1e-12)


@pytest.mark.parametrize(("samples", "passed", "k"), [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0), (0, 0, 1)])
def test_pass_at_k_refuses_impossible_counts(samples: int, passed: int, k: int) -> None:
    with pytest.raises(ValueError, match="needs 1 <= k <= samples"):
        pass_at_k(samples, passed, k)
