"""A YAML file that remembers on which line each of its keys stands."""

import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from steps.errors import ConfigError

LOOK = "; look there and in the line above for a tab, a missing colon or an indentation unlike its neighbours'"

KeyPath = tuple[Any, ...]
"""Keys and list positions from the root: ``("data", "sources", 0, "files")``."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at one key."""

    path: KeyPath
    message: str


@dataclass(frozen=True)
class Document:
    """What a configuration file says, and where."""

    file: str
    values: dict[Any, Any]
    lines: Mapping[KeyPath, int]
    duplicates: Sequence[Problem]

    def line(self, path: KeyPath) -> int:
        """Line of the key at ``path``, or of its nearest parent that is there; lines count from 1."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def error(self, problems: Sequence[Problem]) -> ConfigError:
        """One error that shows every problem on a line of its own, in the order of the file."""
        lines = {(self.line(problem.path), self._text(problem)): None for problem in problems}
        return ConfigError("\n".join(text for _, text in sorted(lines)))

    def _text(self, problem: Problem) -> str:
        key = f"{dotted(problem.path)}: " if problem.path else ""
        return f"{self.file}:{self.line(problem.path)}: {key}{problem.message}"


def dotted(path: KeyPath) -> str:
    """``("data", "sources", 0, "files")`` as ``data.sources[0].files``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def shipped_configs() -> Path:
    """The folder of the configurations that come with the project: a checkout's, or where pip put the wheel's."""
    checkout = Path(__file__).parents[1] / "configs"
    return checkout if checkout.is_dir() else Path(sysconfig.get_path("data"), "share", "qlora-pipeline", "configs")


def read_document(path: Path) -> Document:
    """Read a configuration file.

    Raises:
        ConfigError: the file is missing, is not text, is not YAML, refers to itself or is not a mapping.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(
                f"{path}:1: the file is empty; it needs parameters.data, parameters.base_model and model.name"
            )
        duplicates = list(_duplicates(node, (), ()))
        values = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        advice = LOOK if isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError) else ""
        raise ConfigError(f"{path}:{line}: not valid YAML: {error.problem or error.context}{advice}") from None
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; those that come with the project are in {shipped_configs()}; copy own-data.yaml"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}:1: not valid YAML in UTF-8: {reason}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}:1: the file must be a mapping with keys such as parameters and model")
    return Document(str(path), values, dict(_lines(node, ())), duplicates)


def _duplicates(node: yaml.Node, path: KeyPath, parents: tuple[yaml.Node, ...]) -> Iterator[Problem]:
    if any(node is parent for parent in parents):
        mark = node.start_mark
        raise yaml.MarkedYAMLError(problem=f"{dotted(path)} contains itself", problem_mark=mark)
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            here = (*path, name)
            if name in first:
                again = key.start_mark.line + 1
                yield Problem(here, f"given twice, on lines {first[name]} and {again}; keep one")
            first[name] = key.start_mark.line + 1
            yield from _duplicates(value, here, (*parents, node))
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _duplicates(item, (*path, position), (*parents, node))


def _lines(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """Line of every key and list item; called after construction, when ``<<`` merges are resolved."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, yaml.SafeLoader("").construct_object(key, deep=True))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            here = (*path, position)
            yield here, item.start_mark.line + 1
            yield from _lines(item, here)
