"""What a function needs of the modules round it: its preamble."""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from steps.errors import DataError

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Statement:
    """A statement of a module: its text, the names that it binds there, and those that it reads."""

    text: str
    binds: frozenset[str]
    reads: frozenset[str]


class Modules:
    """The modules of a package by their dotted names, parsed once; nothing is imported."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths
        self.tree = cache(self._tree)
        self.text = cache(self._text)
        self.statements = cache(self._statements)

    def _text(self, module: str) -> str:
        """The source of a module."""
        path = self.paths[module]
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error.reason}); this package cannot be harvested") from error

    def _tree(self, module: str) -> ast.Module:
        """The syntax tree of a module."""
        try:
            return ast.parse(self.text(module))
        except SyntaxError as error:
            raise DataError(
                f"{self.paths[module]}:{error.lineno}: not valid Python here ({error.msg}); "
                "install a version of the package for this Python"
            ) from error

    def _statements(self, module: str) -> tuple[Statement, ...]:
        """What binds names in a module, in its order; what it imports from modules of this package stands before."""
        return tuple(dict.fromkeys(self._with_imported(module, set())))

    def _with_imported(self, module: str, seen: set[str]) -> Iterator[Statement]:
        seen.add(module)
        lines = self.text(module).splitlines()
        for node in self.tree(module).body:
            if isinstance(node, ast.ImportFrom) and (source := self._imported_from(node, module)):
                if source not in seen:
                    yield from self._with_imported(source, seen)
                yield from _renamed(node)
            elif (binds := frozenset(_bound(node))) and _is_usable(node):
                first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
                yield Statement("\n".join(lines[first - 1 : node.end_lineno]), binds, names_read(node))

    def _imported_from(self, node: ast.ImportFrom, module: str) -> str:
        """The module of this package that a line imports from, "" for any other."""
        named = node.module or ""
        if node.level:
            is_package = self.paths[module].name == "__init__.py"
            parts = module.split(".")
            parts = parts[: len(parts) - node.level + is_package]
            named = ".".join([*parts, *([named] if named else [])])
        return named if named in self.paths else ""


def module_name(file: str) -> str:
    """The dotted name of a module by its file's path below the import root."""
    return ".".join(part for part in Path(file).with_suffix("").parts if part != "__init__")


def preamble(statements: tuple[Statement, ...], function: str, names: frozenset[str]) -> str:
    """The statements that bind ``names``, those that bind what these read, and so on, in their order.

    Args:
        statements: of the function's module.
        function: the name that an answer has to define; no statement that binds it is taken.
        names: what the function and its tests read.
    """
    wanted, taken = set(names), [function in one.binds for one in statements]
    chosen: set[int] = set()
    while more := {at for at, one in enumerate(statements) if not taken[at] and one.binds & wanted}:
        chosen |= more
        for at in more:
            taken[at] = True
            wanted |= statements[at].reads
    return "\n\n".join(statements[at].text for at in sorted(chosen))


def names_read(node: ast.AST) -> frozenset[str]:
    """Names that a piece of code reads anywhere inside."""
    return frozenset(one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load))


def _renamed(node: ast.ImportFrom) -> Iterator[Statement]:
    for alias in node.names:
        if alias.asname and alias.asname != alias.name:
            text = f"{alias.asname} = {alias.name}"
            yield Statement(text, frozenset([alias.asname]), frozenset([alias.name]))


def _is_usable(node: ast.stmt) -> bool:
    """Whether it is no import, or one of Python's standard library, the only one that generated code has."""
    if isinstance(node, ast.ImportFrom):
        modules = [node.module or ""] if not node.level else [""]
    elif isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    else:
        return True
    return all(one.split(".")[0] in sys.stdlib_module_names - {"__future__"} for one in modules)


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its module; what its functions and classes bind inside is theirs."""
    if isinstance(node, Definition):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name):
        yield from [node.id] * isinstance(node.ctx, ast.Store)
    elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)
