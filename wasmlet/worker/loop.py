"""The event loop of the shim and of the broker: it watches descriptors and runs timers, in one thread.

An exception in a callback does not end the loop, because everything that the process holds would end with it. It is
written to the log.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
import traceback
from collections.abc import Callable
from typing import Any

from .log import log_problem

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_FEW = 256
"""With fewer timers than this, cancelled ones are not searched for and removed early."""


class Timer:
    """A call that is made later, unless `cancel` comes first."""

    def __init__(self, deadline: float, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Calls the callbacks of ready descriptors in turns. Each is called once per turn, so that none is starved."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._soon: list[Callable[[], None]] = []
        self._sweep_at = _FEW
        self.stopped = False

    def add(self, source: Any, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` whenever `source` (a descriptor or something with one) is ready."""
        self._selector.register(source, events, callback)

    def change(self, source: Any, events: int) -> None:
        key = self._selector.get_key(source)
        if key.events != events:
            self._selector.modify(source, events, key.data)

    def remove(self, source: Any) -> None:
        self._selector.unregister(source)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback()` after that many seconds."""
        if len(self._timers) >= self._sweep_at:
            # Without this, cancelled timers would stay in the list until their time comes.
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)
            self._sweep_at = max(_FEW, 2 * len(self._timers))
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.deadline, next(self._order), timer))
        return timer

    def soon(self, callback: Callable[[], None]) -> None:
        """Call `callback()` after the callbacks of all descriptors that are ready by now: they do not wait for it."""
        self._soon.append(callback)

    def run(self) -> None:
        """Run until `stopped` is set."""
        while not self.stopped:
            self._turn()

    def _turn(self) -> None:
        timeout = None
        soon, self._soon = self._soon, []
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if soon:
            timeout = 0.0
        elif self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        for key, events in self._selector.select(timeout):
            # An earlier callback of this turn may have closed this source; another one may have its number now.
            if self._selector.get_map().get(key.fd) is key:
                self._call(key.data, events)
        for call in soon:
            self._call(call)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                self._call(callback)

    @staticmethod
    def _call(callback: Callable[..., None], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception:
            log_problem(f"an error of wasmlet's own:\n{traceback.format_exc()}")
