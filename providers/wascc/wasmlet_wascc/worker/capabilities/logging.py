"""`wascc:logging`: lines of the container's log, with their level."""

from __future__ import annotations

from typing import Any

from ..capability import Context, HostError
from ..messages import field, named, number, text

_LEVELS = ("off", "error", "warn", "info", "debug", "trace")
"""By the numbers that actors use."""
_LONGEST = 16 * 1024
_NAMES, _SHORT = ("level", "target", "body"), ("level", "body")
"""The fields of a message, in the order in which older actors send them; some send no target."""


class Logging:
    """Writes what actors log."""

    def __init__(self, context: Context) -> None:
        self._log = context.log

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """See `Capability`. Operations: `WriteLog`, `Log`."""
        if operation not in ("WriteLog", "Log"):
            raise HostError(f"wascc:logging has no operation {operation[:80]!r}, only WriteLog")
        short = isinstance(message, list) and len(message) < len(_NAMES)
        message = named(message, _SHORT if short else _NAMES)
        level = number(message, "level", 3)
        name = _LEVELS[level] if 0 <= level < len(_LEVELS) else str(level)
        target = field(message, "target") or ""
        words = text(message, "body")[:_LONGEST].splitlines() or [""]
        start = f"{name.upper()} {target[:80]}: " if isinstance(target, str) and target else f"{name.upper()} "
        for line in words:
            self._log(start + line)
        return None
