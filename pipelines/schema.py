"""What pydantic models say about a mapping, in plain words: unknown keys and wrong values."""

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from zenml.config.base_settings import BaseSettings

from pipelines.document import KeyPath, Problem

SHOWN_NAMES = 16
"""A longer list of valid names is shown only where no near one was found."""

Homes = Mapping[str, Sequence[str]]
"""Where each known name belongs: ``{"r": ["parameters.training.lora.r"]}``."""


def unknown_key(key: object, valid: Sequence[str], homes: Homes) -> str:
    """The message for a key that is not one of ``valid``."""
    name = str(key).lower().replace("-", "_")
    close = get_close_matches(name, valid, n=1)
    elsewhere = homes.get(name, ())
    hint = ""
    if close:
        hint = f"; did you mean '{close[0]}'?"
    elif elsewhere:
        hint = f" here; it belongs at {' or '.join(elsewhere[:3])}"
    listed = f" (valid: {', '.join(valid)})" if not hint or len(valid) <= SHOWN_NAMES else ""
    return f"unknown key{hint}{listed}"


def unknown_keys(model: type[BaseModel], value: object, path: KeyPath, homes: Homes) -> Iterator[Problem]:
    """Every key at any depth of ``value`` that ``model`` does not have."""
    if not isinstance(value, dict):
        return
    names = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    names |= {name: field.annotation for name, field in model.model_fields.items()}
    open_ended = model.model_config.get("extra") == "allow" and not issubclass(model, BaseSettings)
    for key, child in value.items():
        if key in names:
            yield from _within(names[key], child, (*path, key), homes)
        elif not open_ended:
            yield Problem((*path, key), unknown_key(key, list(model.model_fields), homes))


def _within(annotation: Any, value: object, path: KeyPath, homes: Homes) -> Iterator[Problem]:
    """Unknown keys in a value whose type holds models: ``M | None``, ``tuple[M, ...]``, ``dict[str, M]``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not BaseSettings:
        yield from unknown_keys(annotation, value, path, homes)
    elif origin is Annotated:
        yield from _within(arguments[0], value, path, homes)
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _within(argument, value, path, homes)
    elif isinstance(value, dict) and len(arguments) == 2:
        for key, child in value.items():
            yield from _within(arguments[1], child, (*path, key), homes)
    elif isinstance(value, list) and arguments:
        for position, child in enumerate(value):
            yield from _within(arguments[0], child, (*path, position), homes)


def homes_of(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Each name that ``model`` knows at any depth, with the full key under which it belongs."""
    for name, field in model.model_fields.items():
        yield name, f"{prefix}.{name}"
        for nested in _models_in(field.annotation):
            yield from homes_of(nested, f"{prefix}.{name}")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def wrong_values(error: ValidationError, value: object, path: KeyPath) -> Iterator[Problem]:
    """pydantic's findings about ``value`` at ``path``; unknown keys are left to :func:`unknown_keys`."""
    found: dict[KeyPath, list[Any]] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "extra_forbidden" or _only_seems_short(detail):
            continue
        where = (*path, *_location(detail["loc"], value, detail["type"] == "missing"))
        if detail["type"] == "value_error":
            where += _key_in_message(detail)
        found.setdefault(where, []).append(detail)
    for where, details in found.items():
        others = [detail for detail in details if not _needed(detail)]
        deeper = any(place[: len(where)] == where and place != where for place in found)
        wrong_types = {_needed(detail): None for detail in details if _needed(detail)}
        # one member of a union complains of the type where another complains of what is inside: that one was meant
        messages = [] if others or deeper else [f"needs {' or '.join(wrong_types)}, not {shown(details[0]['input'])}"]
        messages += [_in_words(detail) for detail in others]
        if messages:
            yield Problem(where, "; or ".join(dict.fromkeys(messages)))


def _only_seems_short(detail: Any) -> bool:
    """pydantic calls a list too short when its items are wrong; those have messages of their own."""
    return detail["type"] == "too_short" and bool(len(detail["input"]) >= detail["ctx"]["min_length"])


def _location(location: KeyPath, value: Any, missing: bool) -> KeyPath:
    """pydantic's location without the names of union members and validators: they are no keys of the file."""
    path: list[Any] = []
    for number, part in enumerate(location):
        if missing and number == len(location) - 1:
            pass  # the key or position that is not there
        elif (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            value = value[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _key_in_message(detail: Any) -> KeyPath:
    """The key that a whole model's message speaks of first, where the file has it."""
    keys = detail["input"] if isinstance(detail["input"], dict) else {}
    words = re.findall(r"\w+", str(detail["ctx"]["error"]))
    return next(((word,) for word in words if word in keys), ())


NEEDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of keys",
    "mapping": "a mapping of keys",
    "model": "a mapping of keys",
}
"""pydantic's error type without its ending -> what it wanted."""

BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _in_words(detail: Any) -> str:
    kind, context = str(detail["type"]), detail.get("ctx", {})
    given = shown(detail["input"])
    if kind == "missing":
        return "missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"])
        close = get_close_matches(str(detail["input"]), names, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return f"{given} is not one of {context['expected']}{hint}"
    if kind == "too_short":
        return f"needs at least {context['min_length']} item{'s' if context['min_length'] > 1 else ''}"
    if kind in BOUNDS:
        words, name = BOUNDS[kind]
        return f"{given} is impossible; it must be {words} {context[name]:g}"
    return f"{detail['msg']}, not {given}"


def _needed(detail: Any) -> str:
    """What the value should have been, where its type is what is wrong, else ``""``."""
    kind = str(detail["type"])
    return NEEDS.get(kind) or NEEDS.get(re.sub("_(type|parsing|parsing_size|from_float)$", "", kind), "")


def shown(value: object) -> str:
    """A value as an error message shows it, in YAML's words and cut to a readable length."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
