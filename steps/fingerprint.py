"""What a step's result depends on beyond its inputs and parameters: its own source and the libraries it calls."""

import ast
import hashlib
import os
import sys
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRESENTATION = {"page", "progress", "record"}
"""Modules that show or record a result and never decide it: a new colour must not retrain a model."""

LOADERS = {"datasets": "materializers/dataset.py", "steps.artifacts": "materializers/directory.py"}
"""What reads the inputs of a step that imports such types: the step itself names only what stores its outputs."""

IMPORTED_AT = time.time()
"""Since when, in seconds of the epoch, an edit of a module may come too late for this process."""


def fingerprint(step_file: str, *libraries: str) -> str:
    """A hash of every first-party module that ``step_file`` imports, however indirectly, and of versions.

    Comments, docstrings, parameters' descriptions and layout do not count: the syntax trees are hashed. Python's own
    version counts for all (3.12, not 3.12.1). Computed by the client as a step begins; nothing is imported.

    A module that this process imported before it was edited, say in a notebook, runs as it was: then the hash is one
    that no other process has, so that the new code is never taken for the maker of what the old one made.

    Args:
        step_file: ``__file__`` of the step's module.
        libraries: distribution names whose version decides the result, such as ``"tokenizers"``.
    """
    digest = hashlib.sha256("python=={}.{}".format(*sys.version_info).encode())
    files = sorted(_imported_files(Path(step_file).resolve()))
    for path in files:
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(_parsed(path.read_text(encoding="utf-8"))[1].encode())
    for library in libraries:
        digest.update(f"{library}=={version(library)}".encode())
    if any(map(_outdated, files)):
        digest.update(f"{os.getpid()} {IMPORTED_AT}".encode())
    return digest.hexdigest()


def _outdated(path: Path) -> bool:
    """Whether this process may run another text of the module than the file has now.

    A file from the future was written before the clock was set back; it is no reason to run every step again.
    """
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return module in sys.modules and IMPORTED_AT < path.stat().st_mtime <= time.time()


def _imported_files(start: Path) -> set[Path]:
    seen: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in seen or path.stem in PRESENTATION:
            continue
        seen.add(path)
        names, _ = _parsed(path.read_text(encoding="utf-8"))
        waiting.extend(file for name in names if (file := _first_party(name)) is not None)
        if path == start:
            waiting.extend(file for name in names & LOADERS.keys() if (file := ROOT / LOADERS[name]).is_file())
    return seen


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _first_party(name: str) -> Path | None:
    if name.split(".")[0] not in {"steps", "materializers", "pipelines"}:
        return None
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _parsed(text: str) -> tuple[frozenset[str], str]:
    """What a module imports, and its syntax tree; steps share modules, so each text is parsed once a process."""
    tree = ast.parse(text)
    names = frozenset(name for node in ast.walk(tree) for name in _names(node))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_bare_string(line)]  # type: ignore[attr-defined]  # any block
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
    return names, ast.dump(tree)


def _is_bare_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
