"""`example:clock`: a waSCC capability that tells actors the time.

An actor is a signed WebAssembly module, and a capability is something that it may ask its host for. This is an example
of a capability that comes in a distribution of its own (`wasmlet_wascc.capability`).
"""

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
        """Answer one request of an actor.

        Raises:
            ValueError: the request cannot be answered; the actor gets the text of the error.
        """
        if operation != "Now":
            raise ValueError(f"there is no operation {operation[:80]!r}, only Now")
        if message is not None and not isinstance(message, dict):
            raise ValueError(f"expected a map or nothing, found {type(message).__name__}")
        return {"seconds": int(time.time()) + self._offset}
