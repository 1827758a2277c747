"""What a step's result depends on beyond its inputs and parameters: its own source and the libraries it calls."""

import ast
import hashlib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRESENTATION = {"page", "progress", "record"}
"""Modules that show or record a result and never decide it: a new colour must not retrain a model."""


def fingerprint(step_file: str, *libraries: str) -> str:
    """A hash of every first-party module that ``step_file`` imports, however indirectly, and library versions.

    Comments, docstrings and layout do not count: the syntax trees are hashed. Computed by the client before a
    run, so nothing is imported.

    Args:
        step_file: ``__file__`` of the step's module.
        libraries: distribution names whose version decides the result, such as ``"tokenizers"``.
    """
    digest = hashlib.sha256()
    for path in sorted(_imported_files(Path(step_file).resolve())):
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(_code(path).encode())
    for library in libraries:
        digest.update(f"{library}=={version(library)}".encode())
    return digest.hexdigest()


def _imported_files(start: Path) -> set[Path]:
    seen: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in seen or path.stem in PRESENTATION:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            waiting.extend(file for name in _names(node) if (file := _first_party(name)) is not None)
    return seen


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _first_party(name: str) -> Path | None:
    if name.split(".")[0] not in {"steps", "materializers"}:
        return None
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_bare_string(line)]  # type: ignore[attr-defined]  # any block
    return ast.dump(tree)


def _is_bare_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
