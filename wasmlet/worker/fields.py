"""Values that several messages have in common (`messages`, `wire`), and the checks of message fields.

Each check returns its argument in the form that is used here, and raises `wire.WireError` if it is not valid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import wire

MAX_GROUP = 256
MAX_LOG = 1024
"""Characters of a log file's path."""
MAX_WITHIN = 8


class ZygoteKey(NamedTuple):
    """Identifies a zygote: the paths of the interpreter and of the engine's in-worker module, and the engine's version.

    The version is part of the key because an upgrade replaces the files at these paths. A zygote that has loaded the
    old version cannot run what the new version has compiled.
    """

    python: str
    module: str
    version: str

    @classmethod
    def of(cls, zygote: object) -> ZygoteKey:
        """From a message.

        Raises:
            wire.WireError: it is not of that form.
        """
        if isinstance(zygote, Mapping):
            key = cls(zygote.get("python", ""), zygote.get("module", ""), zygote.get("version", ""))
            if all(isinstance(part, str) for part in key) and os.path.isabs(key.python) and os.path.isabs(key.module):
                return key
        raise wire.WireError("expected a zygote with the absolute paths of an interpreter and of a module")


class Resources(NamedTuple):
    """The resources of a container: `memory` in bytes, the others in thousandths of a CPU. None means no limit."""

    memory: int | None = None
    cpu: int | None = None
    cpu_request: int | None = None

    @classmethod
    def of(cls, message: Any) -> Resources:
        """From a message.

        Raises:
            wire.WireError: it is not of that form.
        """
        fields = message or {}
        values = [fields.get(name) for name in cls._fields] if isinstance(fields, Mapping) else [""]
        if any(value is not None and (type(value) is not int or value < 0) for value in values):
            raise wire.WireError(f"expected resources as numbers from 0, found {str(message)[:200]!r}")
        return cls(*values)


UNLIMITED = Resources()
_DIGITS = frozenset("0123456789abcdef")


def check_id(value: Any) -> str:
    """The container id, which becomes a file name."""
    if isinstance(value, str) and 8 <= len(value) <= 64 and _DIGITS.issuperset(value):
        return value
    raise wire.WireError(f"expected a container id of 8 to 64 hexadecimal digits, found {str(value)[:80]!r}")


def check_log(value: Any) -> str:
    """The log file's path, which must stay below the state directory's `logs`."""
    parts = value.split("/") if isinstance(value, str) and len(value) <= MAX_LOG else []
    if len(parts) < 2 or parts[0] != "logs" or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise wire.WireError(f"expected a relative path below logs/, found {str(value)[:200]!r}")
    return str(value)


def name_of(message: wire.Message, field: str = "id") -> str:
    """The container id in a message, as text. If it is missing or no text, the result is the id of no container."""
    return str(message.get(field))


def at_least(value: Any, least: int) -> bool:
    """Whether a value is an integer of at least `least`, or None."""
    return value is None or (type(value) is int and value >= least)


def group_of(group: Any) -> str:
    """Check `dense`: containers with the same text share a dense worker; "" for a process of its own."""
    if group is None:
        return ""
    if isinstance(group, str) and 0 < len(group) <= MAX_GROUP:
        return group
    raise wire.WireError(f"expected a group of 1 to {MAX_GROUP} characters, found {str(group)[:80]!r}")


def within_of(paths: Any) -> tuple[str, ...]:
    """Check `within`: the directories in which the containers of a dense worker have their files."""
    if paths is None:
        return ()
    if (
        isinstance(paths, (list, tuple))
        and len(paths) <= MAX_WITHIN
        and all(isinstance(p, str) and p[:1] == "/" for p in paths)
    ):
        return tuple(paths)
    raise wire.WireError(f"expected at most {MAX_WITHIN} absolute paths, found {str(paths)[:80]!r}")
