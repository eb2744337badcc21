"""A queue of the keys of objects that a controller has to look at: each key once, however often its object changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.timers import Timers
from wasmlet.controlplane.storage.status import ApiError

Key = tuple[str, str]
"""Namespace and name, or a kind's plural and a UID."""
Settle = Callable[[Key], float | None]
"""Looks at an object and does what has to be done. Returns in how many seconds to look again; None for not at all.

Zero seconds mean that there was too much to do at once."""
FIRST_RETRY, LAST_RETRY = 1.0, 300.0
"""The pause in seconds after the first write that was refused, which doubles each time, and the longest one."""
LONG = 0.005
"""A look that takes more seconds than this counts as long, as at a ReplicaSet with hundreds of pods."""
REST = 10
"""After a long look, the object rests for this many times its duration. So its next changes are handled together."""


class Queue:
    """Calls `settle` for each key, one after the other. A refused write is tried again after a pause; nothing polls."""

    def __init__(self, clock: Clock, settle: Settle) -> None:
        self._settle = settle
        self._due: Timers[Key] = Timers(clock)
        self._keys: dict[Key, None] = {}
        self._refused: dict[Key, int] = {}
        self._rests: dict[Key, float] = {}
        """Until when, by the monotonic clock, an object is left alone."""
        self._clock = clock
        self._wake = asyncio.Event()

    def add(self, key: Key) -> None:
        """Queue an object, to be looked at soon."""
        self._keys[key] = None
        self._wake.set()

    def forget(self, key: Key) -> None:
        """Drop what is known of an object that is gone."""
        self._keys.pop(key, None)
        self._refused.pop(key, None)
        self._rests.pop(key, None)
        self._due.cancel(key)

    async def run(self) -> None:
        """Look at objects until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work())
            group.create_task(self._wait())

    async def _wait(self) -> None:
        while True:
            self.add(await self._due.next())

    async def _work(self) -> None:
        while True:
            while self._keys:
                key = next(iter(self._keys))
                del self._keys[key]
                began = self._clock.monotonic()
                if (rest := self._rests.pop(key, began) - began) > 0:
                    self._rests[key] = began + rest
                    self._due.set(key, rest)
                    continue
                more = self._look(key)
                if (took := self._clock.monotonic() - began) > LONG and not more:
                    self._rests[key] = began + took + REST * took
                await asyncio.sleep(0)  # others get their turn on the event loop
            self._wake.clear()
            await self._wake.wait()

    def _look(self, key: Key) -> bool:
        """Look at an object. Returns whether there is more to do at once."""
        try:
            seconds = self._settle(key)
        except ApiError:  # the controller has said so in an event or a condition
            count = self._refused.get(key, 0)
            self._refused[key] = count + 1
            self._due.set(key, min(FIRST_RETRY * 2 ** min(count, 16), LAST_RETRY))
            return False
        self._refused.pop(key, None)
        if seconds is None:
            self._due.cancel(key)
        else:
            self._due.set(key, seconds)
        return seconds == 0
