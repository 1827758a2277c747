"""Documented functions become rows whose code is the function's and whose tests still pass."""

import ast
import doctest
import importlib
import inspect
import sys
from functools import cache
from pathlib import Path

import pytest

from steps.errors import DataError
from steps.ingest.harvest import DocumentedFunction, harvest, license_of
from steps.resolve.data import package_files

PACKAGES = ["boltons", "more_itertools", "toolz"]


def _harvest(tmp_path: Path, source: str, name: str = "shop/goods.py") -> list[DocumentedFunction]:
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    return list(harvest({name: path}))


@pytest.mark.parametrize(
    ("package", "least", "with_tests"), [*zip(PACKAGES, (140, 155, 65), (100, 150, 60), strict=True)]
)
def test_real_packages_give_many_rows_once_each(package: str, least: int, with_tests: int) -> None:
    found = list(harvest(package_files(package, "key")))
    assert len(found) >= least
    assert sum(bool(function.tests) for function in found) >= with_tests
    assert len({function.qualified_name for function in found}) == len(found)
    assert found == list(harvest(package_files(package, "key")))


@cache
def docstrings(module: str) -> dict[str, str]:
    """Of a module's functions, those too that it defines for other Pythons than this one."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name: ast.get_docstring(node, clean=False) or "" for node in functions}


@pytest.mark.parametrize("package", PACKAGES)
def test_completions_are_the_functions_themselves(package: str) -> None:
    for function in harvest(package_files(package, "key")):
        (node,) = ast.parse(function.completion).body
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        module, _, name = function.qualified_name.rpartition(".")
        assert node.name == name
        assert function.instruction.startswith(f"Write a Python function `{name}(")
        assert ">>>" not in function.instruction
        assert docstrings(module)[name] not in function.completion


def test_doctests_pass_with_the_harvested_code() -> None:
    """Not one of toolz' functions may fail its own examples once its docstring is cut out."""
    failed = []
    for function in harvest(package_files("toolz", "key")):
        names = dict(vars(importlib.import_module(function.qualified_name.rpartition(".")[0])))
        exec(compile(function.completion, function.qualified_name, "exec"), names)  # noqa: S102 - toolz' own code
        for session in function.tests:
            test = doctest.DocTestParser().get_doctest(session, names, function.qualified_name, None, None)
            if doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed:
                failed.append(function.qualified_name)
    assert failed == []


def test_prose_signature_comments_and_decorators_are_kept(tmp_path: Path) -> None:
    source = '''
@cache
def price(item: str, *, vat=0.2) -> float:
    """The price of an item.

    With tax.

    Example::

        >>> price("tea")
        2.4
        >>> price("tea", vat=0)
        2.0

    Later prose.
    """

    # Tea only.
    return 2.0 * (1 + vat)
'''
    (function,) = _harvest(tmp_path, source)
    assert function == DocumentedFunction(
        qualified_name="shop.goods.price",
        instruction=(
            "Write a Python function `price(item: str, *, vat=0.2) -> float`.\n\nThe price of an item.\n\nWith tax."
        ),
        completion=("@cache\ndef price(item: str, *, vat=0.2) -> float:\n    # Tea only.\n    return 2.0 * (1 + vat)"),
        tests=('>>> price("tea")\n2.4\n>>> price("tea", vat=0)\n2.0\n',),
        preamble="",
    )


def test_a_docstring_that_shares_its_line_is_cut_too(tmp_path: Path) -> None:
    (function,) = _harvest(tmp_path, 'def one(): "The number one."; return 1\n')
    assert function.completion == "def one():\n    return 1"


def test_a_text_that_reaches_the_margin_survives_dedenting(tmp_path: Path) -> None:
    source = 'if True:\n    def banner():\n        """Text."""\n        return """\nmargin\n    """\n'
    (function,) = _harvest(tmp_path, source)
    names: dict[str, object] = {}
    exec(function.completion, names)  # noqa: S102 - the text above
    assert names["banner"]() == "\nmargin\n    "  # type: ignore[operator]  # a function


def test_definitions_under_try_prefer_the_one_that_works(tmp_path: Path) -> None:
    source = '''
try:
    import fcntl
except ImportError:
    def lock():
        """Do nothing."""
        return None
else:
    def lock():
        """Lock."""
        return fcntl
'''
    (function,) = _harvest(tmp_path, source)
    assert function.instruction.endswith("Lock.")


@pytest.mark.parametrize(
    "source",
    [
        'def _private():\n    """Doc."""\n    return 1\n',
        "def undocumented():\n    return 1\n",
        'def no_body():\n    """Doc."""\n',
        'def stub():\n    """Doc."""\n    ...\n',
        'def passes():\n    """Doc."""\n    pass\n',
        'def only_examples():\n    """>>> only_examples()\n    1\n    """\n    return 1\n',
        'class Shop:\n    def method(self):\n        """Doc."""\n        return 1\n',
        'def outer():\n    def inner():\n        """Doc."""\n        return 1\n    return inner\n',
    ],
)
def test_other_code_gives_no_row(tmp_path: Path, source: str) -> None:
    assert _harvest(tmp_path, source) == []


@pytest.mark.parametrize(
    "name",
    ["shop/tests/goods.py", "shop/test_goods.py", "shop/_goods.py", "shop/conftest.py", "shop/__main__.py"],
)
def test_private_modules_and_tests_give_no_row(tmp_path: Path, name: str) -> None:
    assert _harvest(tmp_path, 'def f():\n    """Doc."""\n    return 1\n', name) == []


def test_malformed_examples_are_no_tests(tmp_path: Path) -> None:
    source = 'def f():\n    """Doc.\n\n    >>> f(\n    ...1)\n    """\n    return 1\n'
    (function,) = _harvest(tmp_path, source)
    assert function.tests == ()


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dangerous.py").write_text('raise SystemExit\ndef f():\n    """Doc."""\n    return 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [found.qualified_name for found in harvest(package_files("dangerous", "key"))] == ["dangerous.f"]
    assert "dangerous" not in sys.modules


def test_source_that_is_not_python_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"module\.py:1: not valid Python here .*install a version"):
        _harvest(tmp_path, "print 'two'\n")


def test_source_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes(b"x = '\xe9'\n")
    with pytest.raises(DataError, match=r"latin\.py: not UTF-8"):
        list(harvest({"latin.py": path}))


@pytest.mark.parametrize(
    ("distribution", "license"),
    [("boltons", "BSD-3-Clause"), ("more-itertools", "MIT"), ("toolz", "BSD-3-Clause")],
)
def test_licences_are_spdx_ids(distribution: str, license: str) -> None:
    assert license_of(distribution) == license
