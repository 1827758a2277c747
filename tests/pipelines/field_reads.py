"""Which fields of the parameter models some code reads, found from the syntax trees alone.

An expression's model is known where a function's argument, a class's attribute or an assignment says it, and
is followed through attributes, loops and subscripts: ``training.seed`` never counts for ``splits.seed``.
"""

import ast
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from steps.parameters import Parameters

Model = type[Parameters]
Read = tuple[str, str]
"""Name of the model, name of the field."""


def fields_of(models: Iterable[Model]) -> set[Read]:
    """Every field of every model, under the name of the model that brought it: readers of a base read it for all."""
    return {(_owner(model, field), field) for model in models for field in model.model_fields}


def _owner(model: Model, field: str) -> str:
    bases = [base for base in model.__mro__ if issubclass(base, Parameters) and field in base.model_fields]
    return bases[-1].__name__


def reads_in(files: Iterable[Path], models: Iterable[Model]) -> set[Read]:
    """The fields that code in ``files`` reads."""
    named = {model.__name__: model for model in models}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    attributes = {name: model for tree in trees for name, model in _class_attributes(tree, named)}
    reads: set[Read] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                reads |= _Function(node, named, attributes).reads
    return reads


def _class_attributes(tree: ast.Module, named: Mapping[str, Model]) -> Iterator[tuple[str, Model]]:
    """``name: M`` in a class's body, and ``self.name = argument`` where the argument is a model."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    model = _annotated(line.annotation, named)
                    if model is not None:
                        yield line.target.id, model
        elif isinstance(node, ast.FunctionDef):
            arguments = _arguments(node, named)
            for inner in ast.walk(node):
                if isinstance(inner, ast.Assign) and isinstance(inner.value, ast.Name):
                    target = inner.targets[0]
                    if isinstance(target, ast.Attribute) and inner.value.id in arguments:
                        yield target.attr, arguments[inner.value.id]


def _arguments(node: ast.FunctionDef, named: Mapping[str, Model]) -> dict[str, Model]:
    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    models = {argument.arg: _annotated(argument.annotation, named) for argument in arguments}
    return {name: model for name, model in models.items() if model is not None}


def _annotated(annotation: ast.expr | None, named: Mapping[str, Model]) -> Model | None:
    """The model that an annotation such as ``M``, ``"M"`` or ``M | None`` names."""
    for node in ast.walk(annotation) if annotation is not None else ():
        name = node.id if isinstance(node, ast.Name) else node.value if isinstance(node, ast.Constant) else None
        if isinstance(name, str) and name in named:
            return named[name]
    return None


class _Function:
    """Follows the models through one function."""

    def __init__(self, node: ast.FunctionDef, named: Mapping[str, Model], attributes: Mapping[str, Model]) -> None:
        self.attributes = attributes
        self.reads: set[Read] = set()
        self.names = _arguments(node, named)
        for _ in range(2):  # a comprehension uses a name before the tree walk comes to where it is bound
            for inner in ast.walk(node):
                self._bind(inner)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute):
                self._model_of(inner)
            elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "getattr":
                self._reads_all(inner.args[0])

    def _reads_all(self, node: ast.expr) -> None:
        """``getattr(columns, name)`` with a computed name: a loop over the fields."""
        model = self._model_of(node)
        if model is not None:
            self.reads |= fields_of([model])

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):  # training, blocks = task.training, ...
                for one, of_it in zip(target.elts, value.elts, strict=False):
                    self._bind_name(one, of_it)
            self._bind_name(target, value)
        elif isinstance(node, ast.NamedExpr):
            self._bind_name(node.target, node.value)
        elif isinstance(node, ast.For | ast.comprehension):
            target, value = node.target, node.iter
            if isinstance(value, ast.Call) and value.args:  # enumerate(data.sources), zip(data.sources, ...)
                counted = isinstance(value.func, ast.Name) and value.func.id == "enumerate"
                if isinstance(target, ast.Tuple):
                    target = target.elts[1 if counted else 0]
                value = value.args[0]
            self._bind_name(target, value)

    def _bind_name(self, target: ast.expr, value: ast.expr) -> None:
        model = self._model_of(value)
        if model is not None and isinstance(target, ast.Name):
            self.names[target.id] = model

    def _model_of(self, node: ast.expr) -> Model | None:
        """The model of an expression's value or of its items; every field read on the way is noted."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Subscript):
            return self._model_of(node.value)
        if isinstance(node, ast.Attribute):
            model = self._model_of(node.value)
            if model is None:
                return self.attributes.get(node.attr)
            if node.attr in model.model_fields:
                self.reads.add((_owner(model, node.attr), node.attr))
                return _model_in(model.model_fields[node.attr].annotation)
        return None


def _model_in(annotation: Any) -> Model | None:
    if isinstance(annotation, type) and issubclass(annotation, Parameters):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)
    return None
