"""Makes rows of the documented functions of a package, from its source alone: nothing is imported."""

import ast
import copy
import doctest
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

from steps.ingest.surroundings import Modules, module_name, names_read, preamble

Function = ast.FunctionDef | ast.AsyncFunctionDef

EXAMPLES_HEADING = re.compile(r"(?:for )?(?:examples?|usage|doctests?)(?: usage)?\s*:*\s*(?:\n[-=~]+)?", re.IGNORECASE)
SPDX_OF_CLASSIFIER = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",  # the classifier does not say which BSD licence; nearly all are this one
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}


@dataclass(frozen=True)
class DocumentedFunction:
    """One public function: what its docstring asks for, and its source without that docstring."""

    qualified_name: str
    instruction: str
    completion: str
    tests: tuple[str, ...]
    preamble: str  # what of its module the function and its tests need


def harvest(files: Mapping[str, Path]) -> Iterator[DocumentedFunction]:
    """The documented public functions of a package, in the order of its files and of their lines.

    A function counts where it is defined at the level of a module that is neither private nor a test, has a
    docstring with prose, and a body besides it; of definitions with one name in one module the first counts.

    Args:
        files: Python files by their path below the import root (see ``package_files``).
    """
    modules = Modules({module_name(name): path for name, path in files.items()})
    for name in files:
        module = module_name(name)
        if any(_is_left_out(part) for part in module.split(".")):
            continue
        seen = set()
        for node in _functions(modules.tree(module).body):
            if node.name not in seen and (found := _documented(node, module, modules)) is not None:
                seen.add(node.name)
                yield found


def license_of(distribution: str) -> str:
    """SPDX id of a distribution's licence from its metadata; "" where that states none or several."""
    stated = metadata(distribution)
    if "License-Expression" in stated:
        return stated["License-Expression"]
    classifiers = [line.split(" :: ")[-1] for line in stated.get_all("Classifier") or [] if line.startswith("License")]
    return SPDX_OF_CLASSIFIER.get(classifiers[0], "") if len(classifiers) == 1 else ""


def _is_left_out(part: str) -> bool:
    return part.startswith(("_", "test_")) or part in {"tests", "test", "conftest"}


def _functions(body: list[ast.stmt]) -> Iterator[Function]:
    """Functions of a module, also those that it defines under ``if`` or ``try``, fall-backs last."""
    for node in body:
        if isinstance(node, Function):
            yield node
        elif isinstance(node, ast.If):
            yield from _functions([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [line for handler in node.handlers for line in handler.body]
            yield from _functions([*node.body, *node.orelse, *handlers])


def _documented(node: Function, module: str, modules: Modules) -> DocumentedFunction | None:
    docstring = ast.get_docstring(node, clean=False)
    if node.name.startswith("_") or docstring is None or all(map(_does_nothing, node.body[1:])):
        return None
    docstring = inspect.cleandoc(docstring)
    prose = _prose(docstring)
    if not prose:
        return None
    tests = _doctests(docstring)
    return DocumentedFunction(
        qualified_name=f"{module}.{node.name}",
        instruction=f"Write a Python function `{_signature(node)}`.\n\n{prose}",
        completion=_without_docstring(node, modules.text(module)),
        tests=tests,
        preamble=preamble(modules.statements(module), node.name, names_read(node) | _names_in(tests)),
    )


def _names_in(tests: tuple[str, ...]) -> frozenset[str]:
    """Names that the sessions' own code reads; a malformed example has none."""
    found: frozenset[str] = frozenset()
    for example in (one for session in tests for one in doctest.DocTestParser().get_examples(session)):
        with suppress(SyntaxError):
            found |= names_read(ast.parse(example.source))
    return found


def _does_nothing(line: ast.stmt) -> bool:
    return isinstance(line, ast.Pass) or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))


def _signature(node: Function) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def _prose(docstring: str) -> str:
    """What the docstring says before its first example, without a heading for the examples."""
    paragraphs = re.split(r"\n\s*\n", docstring.split(">>>", maxsplit=1)[0].strip())
    while paragraphs and EXAMPLES_HEADING.fullmatch(paragraphs[-1].strip()):
        paragraphs.pop()
    return "\n\n".join(paragraphs).strip()


def _doctests(docstring: str) -> tuple[str, ...]:
    """The examples as one session, since later ones use the names of earlier ones."""
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
    except ValueError:  # malformed examples prove nothing
        return ()
    session = "".join(_prompted(example.source) + example.want for example in examples)
    return (session,) if session else ()


def _prompted(source: str) -> str:
    first, *rest = source.splitlines()
    return "\n".join([f">>> {first}", *(f"... {line}".rstrip() for line in rest)]) + "\n"


def _without_docstring(node: Function, text: str) -> str:
    """The function's own lines with comments and decorators, or its unparsed tree where none can be cut."""
    bare = copy.copy(node)
    bare.body = node.body[1:]
    lines = text.splitlines()
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    after = lines[node.body[0].end_lineno : node.end_lineno]
    while after and not after[0].strip():
        after.pop(0)
    cut = textwrap.dedent("\n".join([*lines[first - 1 : node.body[0].lineno - 1], *after]))
    return cut if _same_code(cut, bare) else ast.unparse(bare)


def _same_code(text: str, node: Function) -> bool:
    try:
        return ast.dump(ast.parse(text)) == ast.dump(ast.Module(body=[node], type_ignores=[]))
    except SyntaxError:
        return False
