"""Honest programs pass their tests in the sandbox, wrong ones fail: what tests of real data do."""

import pytest

from steps.errors import DeviceError
from steps.evaluate.sandbox.limits import Limits
from steps.evaluate.sandbox.names import names_in
from steps.evaluate.sandbox.process import Program, run_program
from steps.evaluate.sandbox.run import usable_limits


@pytest.fixture(scope="module")
def limits() -> Limits:
    try:
        return usable_limits(Limits(), accept_risk=False)
    except DeviceError as error:
        pytest.skip(f"the kernel forbids isolation: {error}")


RIGHT = {
    "MBPP": ("def add(a, b):\n    return a + b\n", ("assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'")),
    "set-up code": ("def half(x):\n    return x / 2\n", ("import math\nassert math.isclose(half(3), 1.5)",)),
    "a module that no one imports": ("import math\ndef half(x):\n    return x / 2\n", ("assert math.isclose(half(3), 1.5)",)),
    "an import of the solution": (
        "from collections import Counter\ndef count(x):\n    return Counter(x)\n",
        ("assert count('aab') == Counter({'a': 2, 'b': 1})",),
    ),
    "HumanEval": (
        "def incr(x):\n    return [n + 1 for n in x]\n",
        ("def check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n    assert candidate([]) == []\n\ncheck(incr)",),
    ),
    "a name like a builtin's": ("def sum(a, b):\n    return a + b\n", ("assert sum(1, 2) == 3",)),
    "doctest": ("def inc(x):\n    return x + 1\n", (">>> inc(1)\n2\n>>> x = inc(2)\n>>> x, 'a'\n(3, 'a')\n",)),
    "doctest of what is printed": ("def say(x):\n    print('hello', x)\n", (">>> say(1)\nhello 1\n",)),
    "doctest of an exception": (
        "class Odd(ValueError): pass\ndef f(x):\n    raise Odd('no')\n",
        (">>> f(1)\nTraceback (most recent call last):\n  ...\nOdd: no\n",),
    ),
    "an exception that a test catches": (
        "def f(x):\n    return {}[x]\n",
        ("try:\n    f(1)\nexcept KeyError:\n    pass\nelse:\n    assert False",),
    ),
    "functions as arguments": (
        "def both(f, xs):\n    return [f(x) for x in sorted(xs, key=f)]\n",
        ("assert both(lambda x: -x, [1, 3, 2]) == [-3, -2, -1]",),
    ),
    "an argument that is changed": ("def order(x):\n    x.sort()\n", ("x = [3, 1, 2]\norder(x)\nassert x == [1, 2, 3]",)),
    "a generator": (
        "def count():\n    n = 0\n    while True:\n        yield n\n        n += 1\n",
        ("import itertools\nassert list(itertools.islice(count(), 3)) == [0, 1, 2]\nassert next(count()) == 0",),
    ),
    "an iterator as argument": ("def first(x):\n    return next(iter(x))\n", ("assert first(iter([5, 6])) == 5\nassert first(x for x in 'ab') == 'a'",)),
    "a class": (
        "class Box:\n    def __init__(self, x):\n        self.x = x\n    def __repr__(self):\n        return f'Box({self.x})'\n"
        "    def __len__(self):\n        return self.x\n",
        (">>> b = Box(2)\n>>> b\nBox(2)\n>>> b.x = b.x + 1\n>>> b.x, len(b), str(b)\n(3, 3, 'Box(3)')\n",),
    ),
    "a named tuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef p():\n    return P(1, 2)\n",
        (">>> p()\nP(x=1, y=2)\n>>> p() == (1, 2), p().y\n(True, 2)\n",),
    ),
    "values of many types": (
        "def same(x):\n    return x\n",
        (
            "from decimal import Decimal\nfrom collections import OrderedDict, defaultdict, deque\n"
            "for x in (None, True, 10**5000, -0.5, float('inf'), 1j, b'a\\xff', 'é\\ud800', (1, (2,)), {1, 2}, frozenset('a'),\n"
            "          {'a': [1], (1, 2): None}, range(3), Decimal('0.10'), OrderedDict(a=1), deque([1], 3), bytearray(b'a')):\n"
            "    assert same(x) == x and type(same(x)) is type(x), x",
        ),
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\ndef f(xs):\n    with ThreadPoolExecutor(4) as pool:\n"
        "        return list(pool.map(abs, xs))\n",
        ("assert f([-1, 2]) == [1, 2]",),
    ),
    "files in the working folder": (
        "def f(text):\n    with open('x.txt', 'w') as file:\n        file.write(text)\n    return open('x.txt').read()\n",
        ("assert f('a') == 'a'",),
    ),
    "extension modules": (
        "import sqlite3, zlib, hashlib, ctypes, decimal, re, datetime, asyncio\ndef f(x):\n    return zlib.decompress(zlib.compress(x))\n",
        ("assert f(b'a') == b'a'",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_pass(name: str, limits: Limits) -> None:
    code, tests = RIGHT[name]
    verdict = run_program(Program(code, tests, code), limits)
    assert (verdict.kind, verdict.detail) == ("passed", "")


@pytest.mark.parametrize(
    ("tests", "kind", "detail"),
    [
        (("assert f(1) == 3", "assert 1"), "wrong result", "test 1:"),
        (("assert f(1) == 2", "assert f(1) == 3, 'not three'"), "wrong result", "test 2: not three"),
        ((">>> f(1)\n3\n",), "wrong result", "test 1: Failed example: f(1) Expected: 3 Got: 2"),
        (("assert f('a') == 2",), "exception", 'test 1: TypeError: can only concatenate str (not "int") to str'),
        (("assert g(1) == 2",), "exception", "test 1: NameError: name 'g' is not defined"),
        (("assert f(1 == 2",), "exception", "test 1: SyntaxError"),
    ],
)
def test_wrong_programs_fail_with_a_reason(tests: tuple[str, ...], kind: str, detail: str, limits: Limits) -> None:
    verdict = run_program(Program("def f(x):\n    return x + 1\n", tests), limits)
    assert verdict.kind == kind
    assert verdict.detail.startswith(detail)
    assert verdict.ran


def test_a_program_without_tests_runs(limits: Limits) -> None:
    assert run_program(Program("print(1)"), limits).kind == "ran"
    failed = run_program(Program("print(x)"), limits)
    assert (failed.kind, failed.ran) == ("exception", False)
    assert failed.detail == "the program: NameError: name 'x' is not defined"


def test_a_time_out_in_a_test_is_no_time_out_of_the_program() -> None:
    verdict = run_program(Program("def f():\n    while True: pass", ("f()",)), Limits(seconds=1.5))
    assert (verdict.kind, verdict.ran) == ("timed out", True)


def test_only_what_the_tests_are_about_comes_from_the_answer() -> None:
    reference = "import math\nfrom os import path as p\n\ndef sum(a):\n    return 1\n\nLIMIT = 3\n"
    names = names_in(["assert sum(1) == len([set()]) and g() and math.pi and p and LIMIT and json", "x = 1; x"], reference)
    assert names.of_answer == ("LIMIT", "g", "sum")
    assert names.imports == ("import math", "from os import path as p")
    assert names.modules == ("json",)
