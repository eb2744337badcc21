"""The event loop of the shim and of the broker: it watches descriptors and runs timers, in one thread.

An exception in a callback does not end the loop, because everything that the process holds would end with it. It is
written to the log.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
import traceback
from collections.abc import Callable
from typing import Any

from .log import log_problem

READ, WRITE = int(select.EPOLLIN), int(select.EPOLLOUT)

_BOTH = READ | WRITE
_FEW = 256
"""With fewer timers than this, cancelled ones are not searched for and removed early."""


_LONGEST = 3600.0
"""Seconds without looking at the timers: epoll takes no more than 24 days, and one may be due years later."""


class Timer:
    """A call that is made later, unless `cancel` comes first."""

    def __init__(self, deadline: float, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class _Watched:
    """A descriptor that is watched."""

    __slots__ = ("callback", "events")

    def __init__(self, events: int, callback: Callable[[int], None]) -> None:
        self.events = events
        self.callback = callback


class Loop:
    """Calls the callbacks of ready descriptors in turns. Each is called once per turn, so that none is starved."""

    def __init__(self) -> None:
        self._poll = select.epoll()  # not by way of `selectors`, which takes longer than most callbacks
        self._watched: dict[int, _Watched] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._soon: list[Callable[[], None]] = []
        self._sweep_at = _FEW
        self.stopped = False

    def add(self, source: Any, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` whenever `source` (a descriptor or something with one) is ready.

        A callback is told of all that it has asked for where the other side is gone, or there is an error.
        """
        number = _number(source)
        self._poll.register(number, events)
        self._watched[number] = _Watched(events, callback)

    def change(self, source: Any, events: int) -> None:
        """Watch for these events from now on."""
        number = _number(source)
        watched = self._watched[number]
        if watched.events != events:
            self._poll.modify(number, events)
            watched.events = events

    def remove(self, source: Any) -> None:
        """Watch it no more; to be called before it is closed."""
        number = _number(source)
        del self._watched[number]
        self._poll.unregister(number)

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
            timeout = min(max(0.0, self._timers[0][0] - time.monotonic()), _LONGEST)
        ready = [(number, events, self._watched.get(number)) for number, events in self._poll.poll(timeout)]
        for number, events, watched in ready:
            # An earlier callback of this turn may have closed this source; another one may have its number now.
            if watched is not None and self._watched.get(number) is watched:
                found = watched.events & (_BOTH if events & ~_BOTH else events)
                if found:
                    self._call(watched.callback, found)
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


def _number(source: Any) -> int:
    return source if isinstance(source, int) else source.fileno()
