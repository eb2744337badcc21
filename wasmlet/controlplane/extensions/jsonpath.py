"""JSONPath as columns, scales and selectable fields of a definition use it: names, indexes, `[*]`, and one filter.

`.status.conditions[?(@.type=="Ready")].status` is the longest form that is read.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import attrs

_STEP = re.compile(
    r"""\.(?P<name>[^.\[\]\s]+)
    | \[(?P<index>-?\d{1,9})\]
    | \[(?P<all>\*)\]
    | \[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]
    | \[\?\(\s*@(?P<path>(\.[\w-]+)+)\s*(?P<operator>==|!=)\s*(?P<value>"[^"]*"|'[^']*'|[\w.+-]+)\s*\)\]""",
    re.VERBOSE,
)


@attrs.frozen
class Filter:
    """The elements of a list whose field has a value, or has another one."""

    path: tuple[str, ...]
    equal: bool
    value: Any

    def picks(self, item: Any) -> bool:
        for name in self.path:
            item = item.get(name) if isinstance(item, dict) else None
        return (item == self.value) is self.equal


Step = str | int | None | Filter
"""A name, an index, all elements, or some of them."""


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> tuple[Step, ...]:
    """The steps of a path, which begins with a dot.

    Raises:
        ValueError: it is no path that is read here.
    """
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(f"{text!r} is no JSONPath from {text[at : at + 20]!r} on")
        steps.append(_step(match))
        at = match.end()
    if not steps:
        raise ValueError("an empty text is no JSONPath")
    return tuple(steps)


def _step(match: re.Match[str]) -> Step:
    if match["name"] is not None:
        return match["name"].replace("\\.", ".")
    if match["quoted"] is not None:
        return match["quoted"]
    if match["index"] is not None:
        return int(match["index"])
    if match["all"] is not None:
        return None
    text = match["value"]
    value: Any = text[1:-1] if text[0] in "\"'" else {"true": True, "false": False}.get(text, _number(text))
    return Filter(tuple(match["path"][1:].split(".")), match["operator"] == "==", value)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def find(obj: Any, text: str) -> list[Any]:
    """The values that a path finds in an object; none where something on the way is missing."""
    found = [obj]
    for step in parse(text):
        following: list[Any] = []
        for value in found:
            match value, step:
                case dict(), str():
                    following += [value[step]] if step in value else []
                case dict(), None:
                    following += value.values()
                case list(), None:
                    following += value
                case list(), int():
                    following += value[step : step + 1 or None]
                case list(), Filter():
                    following += [item for item in value if step.picks(item)]
        found = following
    return found


def first(obj: Any, text: str) -> Any:
    """The first thing that a path finds; None where it finds nothing."""
    found = find(obj, text)
    return found[0] if found else None
