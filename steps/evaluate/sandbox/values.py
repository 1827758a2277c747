"""Values as JSON between two processes that do not trust each other: never a pickle, never code.

Plain values travel as they are. Any other object stays where it was made; its number travels, and the other side holds
a :class:`Remote` in its place.
"""

import collections
import operator
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

EXACT_INTEGERS = 2**53  # beyond, JSON readers and Python's limit on decimal digits get in the way


def _listed(value: Iterable[Any]) -> list[Any]:
    return list(value)


def _pairs(value: dict[Any, Any]) -> list[Any]:
    return [pair for item in value.items() for pair in item]


def _dict(parts: list[Any]) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


PLAIN: dict[type, tuple[Callable[[Any], list[Any]], Callable[[list[Any]], Any]]] = {
    list: (_listed, list),
    tuple: (_listed, tuple),
    set: (_listed, set),
    frozenset: (_listed, frozenset),
    dict: (_pairs, _dict),
    bytes: (lambda value: [value.hex()], lambda parts: bytes.fromhex(parts[0])),
    bytearray: (lambda value: [value.hex()], lambda parts: bytearray.fromhex(parts[0])),
    complex: (lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    range: (lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    slice: (lambda value: [value.start, value.stop, value.step], lambda parts: slice(*parts)),
    Decimal: (lambda value: [str(value)], lambda parts: Decimal(parts[0])),
    Fraction: (lambda value: [value.numerator, value.denominator], lambda parts: Fraction(*parts)),
    collections.Counter: (_pairs, lambda parts: collections.Counter(_dict(parts))),
    collections.OrderedDict: (_pairs, lambda parts: collections.OrderedDict(_dict(parts))),
    collections.defaultdict: (_pairs, lambda parts: collections.defaultdict(None, _dict(parts))),
    collections.deque: (lambda value: [value.maxlen, *value], lambda parts: collections.deque(parts[1:], parts[0])),
}
"""How a type is taken apart and put together again; its parts are values themselves."""

BY_NAME = {kind.__name__: put_together for kind, (_, put_together) in PLAIN.items()}
BASES = (dict, list, tuple, set, frozenset, str, bytes, int, float)


class Remote:
    """Stands for an object of the other process.

    Nothing on it asks the other process how it compares with another, or whether it contains something, so no object
    can claim to be the expected result. Where its type extends a plain one, as a named tuple does, ``plain`` holds
    that value.
    """

    def __init__(self, ask: Callable[..., Any], number: int, kind: str, plain: list[Any]) -> None:
        self.__dict__.update(_ask=ask, _number=number, _kind=kind, _plain=plain)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Remote) and other._number == self._number:
            return True
        return bool(operator.eq(*self._both_plain(other)))

    def __lt__(self, other: object) -> bool:
        return bool(operator.lt(*self._both_plain(other)))

    def __le__(self, other: object) -> bool:
        return bool(operator.le(*self._both_plain(other)))

    def __gt__(self, other: object) -> bool:
        return bool(operator.gt(*self._both_plain(other)))

    def __ge__(self, other: object) -> bool:
        return bool(operator.ge(*self._both_plain(other)))

    def _both_plain(self, other: object) -> tuple[Any, Any]:
        theirs = other._plain if isinstance(other, Remote) else [other]
        if not self._plain or not theirs:
            raise TypeError(f"only the answer's own code could compare its {self._kind} with another object")
        return self._plain[0], theirs[0]

    def __hash__(self) -> int:
        return hash(self._plain[0]) if self._plain else hash(self._number)

    def __getattr__(self, name: str) -> Any:
        return self._ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("setattr", self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call what it stands for, where that is."""
        return self._ask("call", self, *arguments, **named)

    def __bool__(self) -> bool:
        return bool(self._ask("bool", self))

    def __repr__(self) -> str:
        return str(self._ask("repr", self))

    def __str__(self) -> str:
        return str(self._ask("str", self))

    def __iter__(self) -> Any:
        return self._ask("iter", self)


def _forwarding(operation: str) -> Callable[..., Any]:
    def forward(self: Remote, *arguments: Any) -> Any:
        return self._ask(operation, self, *arguments)

    return forward


FORWARDED = (
    *("next", "len", "getitem", "setitem", "delitem", "reversed", "enter", "exit"),
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "abs", "and", "or", "xor"),
)
for _name in FORWARDED:
    setattr(Remote, f"__{_name}__", _forwarding(_name))


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """A value as JSON knows it; ``keep`` gives the number of an object that stays here."""
    kind = type(value)
    if value is None or kind in (bool, str, float) or (kind is int and abs(value) < EXACT_INTEGERS):
        return value
    if kind is int:
        return ["int", hex(value)]
    if kind is Remote:
        return ["yours", value._number]
    if kind in PLAIN:
        return [kind.__name__, *(encode(part, keep) for part in PLAIN[kind][0](value))]
    plain = [encode(_base_value(value, base), keep) for base in BASES if isinstance(value, base)][:1]
    return ["mine", keep(value), kind.__name__, plain]


def decode(message: Any, kept: Callable[[int], Any], ask: Callable[..., Any]) -> Any:
    """The value; ``kept`` gives an object of this side by its number, ``ask`` is what a Remote asks with."""
    if not isinstance(message, list):
        return message
    name, *parts = message
    if name == "int":
        return int(parts[0], 16)
    if name == "yours":
        return kept(parts[0])
    if name == "mine":
        return Remote(ask, int(parts[0]), str(parts[1]), [decode(part, kept, ask) for part in parts[2]])
    return BY_NAME[name]([decode(part, kept, ask) for part in parts])


def _base_value(value: Any, base: type[Any]) -> Any:
    """A plain copy, past the methods that the extending type has of its own."""
    if base is dict:
        return dict(dict.items(value))
    return base(base.__iter__(value)) if base in (list, tuple, set, frozenset) else base.__new__(base, value)
