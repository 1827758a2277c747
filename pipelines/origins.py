"""The resolved configuration: every value with the line that it comes from."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pipelines.config import CheckedConfig
from pipelines.document import Document, KeyPath, dotted

WIDTH = 60
"""Columns before the origin; a longer value pushes its origin to the right."""


def resolved_lines(config: CheckedConfig) -> Iterator[str]:
    """Each parameter as ``training.lora.r: 64  # configs/x.yaml:31``, or ``# default``."""
    for path, value in _parameters(config):
        text = f"{dotted(path)}: {json.dumps(value, ensure_ascii=False)}"
        yield f"{text:<{WIDTH}}  # {_origin(config.document, path)}"


def parameter_counts(config: CheckedConfig) -> tuple[int, int]:
    """How many parameters the file gives, and how many there are."""
    origins = [_origin(config.document, path) for path, _ in _parameters(config)]
    return sum(origin != "default" for origin in origins), len(origins)


def _parameters(config: CheckedConfig) -> Iterator[tuple[KeyPath, Any]]:
    for name, model in config.parameters.items():
        yield from _leaves(model, (name,))


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, BaseModel):
        for name, child in value:
            yield from _leaves(child, (*path, name))
    elif isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        for position, item in enumerate(value):
            yield from _leaves(item, (*path, position))
    else:
        yield path, value


def _origin(document: Document, path: KeyPath) -> str:
    line = document.lines.get(("parameters", *path))
    if line is None and path[-1] == "action" and _is_scalar(document, path[:-1]):
        line = document.lines[("parameters", *path[:-1])]  # "rule: warn" gives the rule's action
    return "default" if line is None else f"{document.file}:{line}"


def _is_scalar(document: Document, path: KeyPath) -> bool:
    """Whether the file gives a value at ``path`` that holds no others."""
    here = ("parameters", *path)
    return here in document.lines and not any(other[:-1] == here for other in document.lines)
