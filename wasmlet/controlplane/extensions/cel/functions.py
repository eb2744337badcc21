"""The functions that Kubernetes adds to CEL, those that are supported here: text, lists, patterns, quantities."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

from celpy import celtypes

from wasmlet.controlplane.extensions.patterns import compiled, matches
from wasmlet.model.quantity import Quantity

_Bool, _Int, _Text, _List = celtypes.BoolType, celtypes.IntType, celtypes.StringType, celtypes.ListType
_LONGEST = 1 << 20
"""The most characters of a text that a function makes."""


def _bounded(text: str) -> Any:
    if len(text) > _LONGEST:
        raise ValueError(f"the text has more than {_LONGEST} characters")
    return _Text(text)


def _find(text: str, pattern: str) -> Any:
    match = compiled(pattern).search(text) if matches(pattern, text) else None
    return _Text(match[0] if match else "")


def _find_all(text: str, pattern: str, most: int = -1) -> Any:
    found = [match[0] for match in compiled(pattern).finditer(text)] if matches(pattern, text) else []
    return _List([_Text(item) for item in (found if most < 0 else found[:most])])


def _split(text: str, separator: str, most: int = -1) -> Any:
    if most == 0:
        return _List([])
    parts = list(text) if separator == "" else text.split(separator, most - 1 if most > 0 else -1)
    return _List([_Text(part) for part in parts])


def _replace(text: str, old: str, new: str, most: int = -1) -> Any:
    return _bounded(text.replace(old, new, most))


def _index(where: Any, what: Any, start: int = 0) -> Any:
    if isinstance(where, str):
        return _Int(where.find(what, start))
    return _Int(next((place for place, item in enumerate(where) if item == what), -1))


def _last_index(where: Any, what: Any) -> Any:
    if isinstance(where, str):
        return _Int(where.rfind(what))
    return _Int(max((place for place, item in enumerate(where) if item == what), default=-1))


def _char_at(text: str, place: int) -> Any:
    if not 0 <= place <= len(text):
        raise ValueError("index out of range")
    return _Text(text[place : place + 1])


def _substring(text: str, start: int, end: int | None = None) -> Any:
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise ValueError("index out of range")
    return _Text(text[start:end])


def _sum(items: Any) -> Any:
    return functools.reduce(lambda a, b: a + b, items[1:], items[0]) if items else _Int(0)


@functools.total_ordering
class _Amount:
    """A quantity."""

    def __init__(self, text: Any) -> None:
        self.value = Quantity.parse(str(text)).value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Amount) and self.value == other.value

    def __lt__(self, other: _Amount) -> bool:
        return self.value < other.value

    def __hash__(self) -> int:
        return hash(self.value)


def _is_quantity(text: Any) -> Any:
    try:
        _Amount(text)
    except (ValueError, ArithmeticError):
        return _Bool(False)
    return _Bool(True)


def _compare(a: Any, b: Any) -> Any:
    return _Int((a > b) - (a < b))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lowerAscii": lambda text: _Text(text.lower()),
    "upperAscii": lambda text: _Text(text.upper()),
    "trim": lambda text: _Text(text.strip()),
    "split": _split,
    "join": lambda items, separator="": _bounded(str(separator).join(items)),
    "replace": _replace,
    "indexOf": _index,
    "lastIndexOf": _last_index,
    "charAt": _char_at,
    "substring": _substring,
    "find": _find,
    "findAll": _find_all,
    "matches": lambda text, pattern: _Bool(matches(pattern, text)),
    "isSorted": lambda items: _Bool(all(a <= b for a, b in itertools.pairwise(items))),
    "sum": _sum,
    "max": lambda items: max(items),
    "quantity": _Amount,
    "isQuantity": _is_quantity,
    "isGreaterThan": lambda a, b: _Bool(a > b),
    "isLessThan": lambda a, b: _Bool(a < b),
    "compareTo": _compare,
    "asInteger": lambda amount: _Int(int(amount.value)),
    "asApproximateFloat": lambda amount: celtypes.DoubleType(float(amount.value)),
}
