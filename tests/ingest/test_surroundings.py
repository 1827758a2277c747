"""The preamble of a function: what of its modules it needs, and no more."""

from pathlib import Path

import pytest

from steps.ingest.harvest import DocumentedFunction, harvest

GOODS = '''
from __future__ import annotations

import math
import os, sys
import numpy
from functools import reduce as fold
from .prices import tax, shop_price as price_of, round_up
from shop import prices

try:
    import _fast
except ImportError:
    _fast = None

RATES = {"tea": 0.1}
UNUSED = 3
A, (B, C) = 1, (2, 3)


@staticmethod
def helper(x):
    local = x
    return local * RATES["tea"]


def unused():
    return helper(1)


def total(x):
    """The total.

    >>> total(B)
    2
    """
    return fold(max, [helper(x), math.ceil(tax(x)), price_of(x)])


def alone(x):
    """Nothing."""
    return [y for y in x]


def recursive(x):
    """Itself."""
    return recursive(x - 1) if x else _again(x)


def _again(x):
    return recursive(x)


again = recursive
'''
PRICES = """
from .goods import helper

_BASE = 100


def tax(x):
    return x + _BASE


def shop_price(x):
    return x


def round_up(x):
    return x
"""


@pytest.fixture
def functions(tmp_path: Path) -> dict[str, DocumentedFunction]:
    files = {}
    for name, text in (("shop/__init__.py", ""), ("shop/goods.py", GOODS), ("shop/prices.py", PRICES)):
        files[name] = tmp_path / name.replace("/", "_")
        files[name].write_text(text, encoding="utf-8")
    return {found.qualified_name.rpartition(".")[2]: found for found in harvest(files)}


def test_what_a_function_and_its_tests_need_stands_in_its_order(functions: dict[str, DocumentedFunction]) -> None:
    assert functions["total"].preamble.split("\n\n") == [
        "import math",
        "from functools import reduce as fold",
        "_BASE = 100",
        "def tax(x):\n    return x + _BASE",
        "def shop_price(x):\n    return x",
        "price_of = shop_price",
        'RATES = {"tea": 0.1}',
        "A, (B, C) = 1, (2, 3)",
        '@staticmethod\ndef helper(x):\n    local = x\n    return local * RATES["tea"]',
    ]


def test_a_function_that_needs_nothing_has_none(functions: dict[str, DocumentedFunction]) -> None:
    assert functions["alone"].preamble == ""


def test_the_preamble_never_defines_what_is_asked_for(functions: dict[str, DocumentedFunction]) -> None:
    assert functions["recursive"].preamble == "def _again(x):\n    return recursive(x)"
