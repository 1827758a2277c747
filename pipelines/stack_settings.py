"""How the steps run on a stack: a file of its own beside the recipe, which names it under ``stack_settings``.

A recipe says what is learned and serves every stack; node selectors, volumes and images belong to a stack and serve
every recipe. ZenML takes one file, so the two are joined before it sees them; where both say something, the recipe's
value is taken.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.document import Document, read_document
from steps.errors import ConfigError

STACK_SETTINGS = "stack_settings"
EXAMPLE = "configs/stacks/kubernetes.yaml"

STACK_PARTS = ("stack_name", "zenml_version", "components")
"""What ``zenml stack import`` reads of such a file."""

RUN_PARTS = ("settings", "steps")
"""What a run takes from it; the same keys as in a recipe."""


def stack_document(recipe: Document) -> Document | None:
    """The file that the recipe names; relative to the working directory, as every path in a recipe.

    Raises:
        ConfigError: the file is missing or cannot be read as a mapping.
    """
    path = recipe.values.get(STACK_SETTINGS)
    if not isinstance(path, str):
        return None
    if not Path(path).is_file():
        raise ConfigError(
            f"{recipe.file}:{recipe.line((STACK_SETTINGS,))}: {STACK_SETTINGS}: {path} is no file; name one such as "
            f"{EXAMPLE}"
        )
    return read_document(Path(path))


def joined(stack: Document, recipe: Document, part: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """One part of a run's configuration: the stack's, over it the recipe's, over that what code gave."""
    found = over(stack.values.get(part) or {}, recipe.values.get(part) or {})
    return dict(over(found, given or {}))


def over(below: Any, above: Any) -> Any:
    """``above`` where it says something, else ``below``; mappings key by key, lists as a whole."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {key: over(below.get(key), above[key]) if key in above else below[key] for key in {**below, **above}}
