"""docs/configuration.md, written from the parameter models: ``make docs``."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from pipelines.finetune import finetune
from pipelines.schema import NEEDS
from steps.parameters import Parameters
from steps.template import TemplateText

PAGE = Path("docs") / "configuration.md"

HEAD = """\
# Configuration

Every key of a run's YAML file. `make docs` writes this page from the parameter models (`steps/*/params.py`), and a test
keeps the two equal. Only `model.name`, `parameters.data.sources` and one of `hub`, `folder` and `package` under
`parameters.base_model` must be given; `qlora check -c FILE` prints each value that a file leads to, with the line that
it comes from or `default`. A key that is not here is an error before anything runs.

```yaml
model:
  name: my-model            # ZenML model to which each run adds a version
parameters:                 # what follows below
  data: ...
  base_model: ...
steps:                      # ZenML's own options of a step, such as
  train: {enable_cache: false}
```

The steps are STEPS.
ZenML's other keys of a run (`settings`, `secrets`, `run_name`, `tags`, ...) are in
[its documentation](https://docs.zenml.io/concepts/steps_and_pipelines/yaml_configuration).

`[]` in a key stands for each item of a list. A default of `null` means that nothing is set, or what the
last column says.
"""

BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def reference() -> str:
    """The whole page: a section for each argument of the pipeline, in their order."""
    parts = [HEAD.replace("STEPS", ", ".join(f"`{name}`" for name in finetune.step_names))]
    for name, parameter in finetune.parameters.items():
        rows = "\n".join(_rows(parameter.model, None, name, {}))
        parts.append(
            f"## {name}\n\n{_text(parameter.model.__doc__)}\n\n| key | type | default | |\n|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(parts)


def _rows(model: type[Parameters], default: Parameters | None, prefix: str, told: dict[str, str]) -> Iterator[str]:
    """A table row for each field at any depth; ``default`` is what stands there where nothing is given.

    ``told`` has the models that were shown in full, with the key at which they were.
    """
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}"
        value = field.get_default(call_default_factory=True) if default is None else getattr(default, name)
        nested = _model_in(field.annotation)
        about = field.description or (nested.__doc__ if nested else "")
        if nested is None:
            yield _row(key, _type(field.annotation, field), _default(field, value), about)
            continue
        inner = value if isinstance(value, nested) and nested is not TemplateText else None
        first = told.setdefault(f"{nested.__name__} {inner!r}", key)
        same = "" if first == key else f" (keys as of `{first}`)"
        yield _row(key, _type(field.annotation, field), _default(field, value), _text(about) + same)
        if first == key:
            listed = "[]" if get_origin(field.annotation) is tuple else ""
            yield from _rows(nested, inner, key + listed, told)


def _row(key: str, kind: str, default: str, about: str | None) -> str:
    return f"| `{key}` | {kind} | {default} | {_text(about).replace('|', chr(92) + '|')} |"


def _text(about: str | None) -> str:
    """A docstring or description as one line of Markdown."""
    return " ".join((about or "").replace("``", "`").split())


def _default(field: FieldInfo, value: Any) -> str:
    if field.is_required():
        return "**required**"
    if isinstance(value, TemplateText):
        return f"`{value.name}`"
    if isinstance(value, Parameters):
        return ""
    if isinstance(value, tuple):
        value = [one.model_dump(exclude_defaults=True) if isinstance(one, Parameters) else one for one in value]
    shown = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return f"`{shown.removesuffix('...' + chr(10)).strip()}`".replace("|", r"\|")


def _type(annotation: Any, field: FieldInfo | None = None) -> str:
    """A type in the words that error messages use, with its bounds."""
    bounds = [
        f"{words} {getattr(one, name):g}"
        for one in (field.metadata if field else ())
        for name, words in BOUNDS.items()
        if getattr(one, name, None) is not None
    ]
    return ", ".join([_words(annotation), *bounds])


def _words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        *others, last = (f"`{name}`" for name in arguments)
        return f"{', '.join(others)} or {last}" if others else last
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in arguments if one is not type(None))
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {count}{_words(arguments[0])}s"
    if origin is dict:
        return f"mapping of {_words(arguments[0])} to {_words(arguments[1])}"
    name = (
        "model"
        if issubclass(annotation, Parameters)
        else {"str": "string"}.get(annotation.__name__, annotation.__name__)
    )
    return NEEDS[name].removeprefix("a ").replace("mapping of keys", "mapping")


def _model_in(annotation: Any) -> type[Parameters] | None:
    """The model that a field's value is, or that each of its items is."""
    if isinstance(annotation, type) and issubclass(annotation, Parameters):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one))), None)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
