"""No parameter is decoration: code in the rooms reads every field of every parameter model."""

import importlib
from pathlib import Path

from steps.ingest.columns import KNOWN_NAMES
from steps.parameters import Parameters
from steps.resolve.params import Columns
from tests.pipelines.field_reads import fields_of, reads_in

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "steps"


def all_models() -> list[type[Parameters]]:
    """Every parameter model of every room."""
    files = sorted(STEPS.rglob("params.py"))
    modules = [importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in files]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Parameters) and value.__module__ == module.__name__
    ]


def test_every_field_is_read() -> None:
    models = all_models()
    assert len(models) >= 10
    code = [path for path in STEPS.rglob("*.py") if path.name != "params.py"]
    code.append(ROOT / "pipelines" / "finetune.py")  # hands fields of one room to another
    unread = fields_of(models) - reads_in(code, models)
    assert sorted(f"{model}.{field}" for model, field in unread) == []


def test_columns_are_read_by_a_loop_over_all_of_them() -> None:
    assert KNOWN_NAMES.keys() == Columns.model_fields.keys()


class Inner(Parameters):
    """Stands inside another model."""

    used: int = 1
    unused: int = 2


class Outer(Parameters):
    """The parameters of a room that does not exist."""

    seed: int = 1
    label: str = ""
    forgotten: int = 1
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()


class Other(Parameters):
    """Has a field of the same name as another model."""

    seed: int = 1


def reads(tmp_path: Path, code: str) -> set[tuple[str, str]]:
    """What a module with this code reads."""
    path = tmp_path / "room.py"
    path.write_text(code, encoding="utf-8")
    return reads_in([path], [Inner, Outer, Other])


def test_a_field_that_nothing_reads_is_caught(tmp_path: Path) -> None:
    code = "def room(outer: Outer) -> int:\n    forgotten = 1\n    print('forgotten')\n    return outer.seed\n"
    assert fields_of([Outer]) - reads(tmp_path, code) == {
        ("Outer", "label"),
        ("Outer", "forgotten"),
        ("Outer", "inner"),
        ("Outer", "many"),
    }


def test_a_field_of_the_same_name_elsewhere_does_not_count(tmp_path: Path) -> None:
    assert reads(tmp_path, "def room(other: Other, outer: Outer): return other.seed\n") == {("Other", "seed")}


def test_reads_are_followed_through_nested_models(tmp_path: Path) -> None:
    inner = {("Outer", "inner"), ("Inner", "used")}
    many = {("Outer", "many"), ("Inner", "used")}
    assert reads(tmp_path, "def room(outer: 'Outer'): return outer.inner.used\n") == inner
    assert reads(tmp_path, "def room(outer: Outer):\n    x = outer.inner\n    return x.used\n") == inner
    assert reads(tmp_path, "def room(outer: Outer | None): return [x.used for x in outer.many]\n") == many
    assert reads(tmp_path, "def room(outer: Outer):\n    for i, x in enumerate(outer.many):\n        x.used\n") == many
    assert reads(tmp_path, "class P:\n  def __init__(self, a: Inner): self.a = a\n  def f(self): self.a.used\n") == {
        ("Inner", "used")
    }
    assert reads(tmp_path, "class P:\n    o: Outer\ndef room(p: P): return p.o.label\n") == {("Outer", "label")}
