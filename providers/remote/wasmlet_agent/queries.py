"""Reads values of queries and headers. Each error says what was expected and what was found."""

from __future__ import annotations

from collections.abc import Mapping

from wasmlet.errors import InvalidInput

_MOST = 2**53
_TRUE, _FALSE = ("", "1", "true"), ("0", "false")


def flag(query: Mapping[str, str], name: str) -> bool:
    """Whether a flag is set; one without a value is.

    Raises:
        InvalidInput: it is neither true nor false.
    """
    text = query.get(name, "false")
    if text not in _TRUE + _FALSE:
        raise InvalidInput(f"{name}: expected true or false, found {text[:40]!r}")
    return text in _TRUE


def number(values: Mapping[str, str], name: str, *, least: int) -> int | None:
    """A whole number; None where it is left out.

    Raises:
        InvalidInput: it is none, or out of range.
    """
    if (text := values.get(name)) is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and least <= int(text) <= _MOST):
        raise InvalidInput(f"{name}: expected a whole number from {least} to {_MOST}, found {text[:40]!r}")
    return int(text)


def wanted(values: Mapping[str, str], name: str, *, least: int) -> int:
    """A whole number that has to be there.

    Raises:
        InvalidInput: it is not there, is none, or out of range.
    """
    if (found := number(values, name, least=least)) is None:
        raise InvalidInput(f"{name}: expected a whole number, found nothing")
    return found


def seconds(query: Mapping[str, str], name: str) -> float:
    """A span of time.

    Raises:
        InvalidInput: it is not there, is none, negative or endless.
    """
    text = query.get(name, "")
    try:
        return span(float(text), name)
    except ValueError:
        raise InvalidInput(f"{name}: expected seconds, at least 0, found {text[:40]!r}") from None


def span(found: float, name: str) -> float:
    """A span of time, in seconds.

    Raises:
        InvalidInput: it is negative or endless.
    """
    if not 0 <= found <= _MOST:
        raise InvalidInput(f"{name}: expected seconds, at least 0, found {found:g}")
    return found
