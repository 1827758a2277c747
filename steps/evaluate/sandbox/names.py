"""Which names of an answer its tests may use: the tests' own imports and builtins are never the answer's."""

import ast
import builtins
import doctest
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Names:
    """What the tests use: names that the answer defines, lines of imports, and modules that nothing imports."""

    of_answer: tuple[str, ...]
    imports: tuple[str, ...]
    modules: tuple[str, ...]


def names_in(tests: Iterable[str], reference: str) -> Names:
    """Names that tests use.

    A name is the answer's if the reference defines it, or if nothing else does: no import of the tests or of the
    reference, no builtin. So an answer that defines ``set`` or ``math`` changes no test that was not about them.

    Args:
        tests: Python, or doctest sessions.
        reference: the solution that the data gives, or "".
    """
    used, bound = _used_and_bound(tests)
    body = _parsed(reference)
    defined = {name for node in body for name in _defined(node)}
    imports = {name: ast.unparse(line) for node in body for name, line in _imported(node)}
    free = used - bound - defined - imports.keys() - set(dir(builtins))
    modules = free & sys.stdlib_module_names
    return Names(
        of_answer=tuple(sorted((used & defined) | (free - modules))),
        imports=tuple(dict.fromkeys(imports[name] for name in sorted(used & (imports.keys() - defined)))),
        modules=tuple(sorted(modules)),
    )


def _used_and_bound(tests: Iterable[str]) -> tuple[set[str], set[str]]:
    used: set[str] = set()
    bound: set[str] = set()
    for test in tests:
        for node in (inner for line in _parsed(_code_of(test)) for inner in ast.walk(line)):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, Definition):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                bound.update(name for name, _ in _imported(node))
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
    return used, bound


def _code_of(test: str) -> str:
    if not test.lstrip().startswith(">>>"):
        return test
    try:
        return "".join(example.source for example in doctest.DocTestParser().get_examples(test))
    except ValueError:  # malformed: it fails when it runs
        return ""


def _parsed(text: str) -> list[ast.stmt]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of the data's code
            return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, Definition):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return {
            inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
        }
    return set()


def _imported(node: ast.stmt) -> list[tuple[str, ast.stmt]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [((alias.asname or alias.name).split(".")[0], node) for alias in node.names]
    return []
