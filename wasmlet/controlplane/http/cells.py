"""Helpers for the cells of `kubectl get`: ages, durations, and the row of a simple kind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from wasmlet.controlplane.storage.status import Object

Cells = list[Any]
NONE, UNKNOWN, UNSET = "<none>", "<unknown>", "<unset>"


def age(stamp: object, now: datetime) -> str:
    """How long ago a time was, as kubectl shows it: 5s, 2m30s, 4h12m, 3d."""
    if not isinstance(stamp, str) or not stamp:
        return UNKNOWN
    try:
        seconds = int((now - datetime.fromisoformat(stamp)).total_seconds())
    except ValueError:
        return "<invalid>"
    return duration(seconds)


def duration(seconds: int) -> str:
    """A duration in kubectl's short form: the longer it is, the less precisely it is given."""
    if seconds < -1:
        return "<invalid>"
    if seconds <= 0:
        return "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def aged(*fields: Callable[[Object], Any]) -> Callable[[Object, datetime], Cells]:
    """Makes the function that gives the cells of a simple kind: its name, some fields, its age."""

    def line(obj: Object, now: datetime) -> Cells:
        meta = obj["metadata"]
        return [meta["name"], *(field(obj) for field in fields), age(meta.get("creationTimestamp"), now)]

    return line
