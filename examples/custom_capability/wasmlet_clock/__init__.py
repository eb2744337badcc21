"""`example:clock`: tells actors the time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasmlet_wascc.capability import Context

__all__ = ["Clock"]


class Clock:
    """Answers `Now` with seconds since 1970, moved by the pod's setting `offset`, in seconds."""

    def __init__(self, context: Context) -> None:
        self._offset = int(context.settings.get("offset", "0"))

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """What an actor asks; `ValueError` has the words for it where that cannot be done."""
        if operation != "Now":
            raise ValueError(f"there is no operation {operation[:80]!r}, only Now")
        if message is not None and not isinstance(message, dict):
            raise ValueError(f"expected a map or nothing, found {type(message).__name__}")
        return {"seconds": int(time.time()) + self._offset}
