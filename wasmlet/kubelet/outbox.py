"""Limits how much data waits in the node for callers that do not read, for all of them together.

A caller that follows a log and reads nothing holds a piece of it and a full send buffer. Each of these is small, and
there may be many callers. So what all of them hold has a bound, above which the one that has read nothing for longest
is hung up on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from wasmlet.concurrency import cut
from wasmlet.memory import give_back

WAITING_BYTES = 16 * 1024 * 1024
"""What all of them may hold together."""
PIECE_BYTES = 16 * 1024
NOTED_BYTES = 4 * 1024 * 1024
"""After so much has waited, memory is given back when nothing waits any more."""
GIVE_BACK_SECONDS = 2.0
"""How long after that: connections that were broken off hold theirs for a moment."""


class Outbox:
    """Sends pieces of answers that go on and on, such as a log that is followed.

    Args:
        most: how many bytes may wait.
        give_back: gives free memory back to the system.
    """

    def __init__(self, most: int = WAITING_BYTES, give_back: Callable[[], None] = give_back) -> None:
        self._most = most
        self._give_back = give_back
        self._waiting: dict[asyncio.Transport, int] = {}
        """The bytes of each caller that a piece waits for; who has waited longest comes first."""
        self._bytes = 0
        self._highest = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many bytes wait."""
        return self._bytes

    async def write(self, response: web.StreamResponse, transport: asyncio.Transport, data: bytes) -> None:
        """Send some bytes; waits while the caller does not read.

        Raises:
            ConnectionError: the caller has gone, or was hung up on.
        """
        for at in range(0, len(data), PIECE_BYTES):
            held = len(data) + transport.get_write_buffer_size()
            self._waiting[transport] = held
            self._bytes += held
            try:
                self._bound()
                await response.write(data[at : at + PIECE_BYTES])
            finally:
                self._bytes -= self._waiting.pop(transport, 0)
                self._quiet()

    def close(self) -> None:
        """Cancel the plan to give memory back."""
        if self._timer is not None:
            self._timer.cancel()

    def _bound(self) -> None:
        self._highest = max(self._highest, self._bytes)
        while self._bytes > self._most and len(self._waiting) > 1:
            slowest = next(iter(self._waiting))
            self._bytes -= self._waiting.pop(slowest)
            cut(slowest)

    def _quiet(self) -> None:
        """If nothing waits any more, and much did, plan to give memory back."""
        if self._waiting or self._highest < NOTED_BYTES:
            return
        self._highest = 0
        self.close()
        self._timer = asyncio.get_running_loop().call_later(GIVE_BACK_SECONDS, self._give_back)
