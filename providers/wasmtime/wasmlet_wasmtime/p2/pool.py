"""Connections of a guest's own requests, which wait for the next request to the same place.

They belong to one process, which is one container. The pod was granted what it has dialled, until it ends.
"""

from __future__ import annotations

import _thread
import time
from typing import NamedTuple

import h11

from .bodies import Broken
from .wire import Wire

MOST, MOST_EACH = 32, 8
"""The most connections that wait: in all, and to one place."""
IDLE_SECONDS = 15.0
"""How long one waits."""


class Place(NamedTuple):
    """Where a connection leads, in the guest's words."""

    secure: bool
    host: str
    port: int


class Link(NamedTuple):
    """A connection that is ready for a request."""

    wire: Wire
    protocol: h11.Connection


class Pool:
    """The connections that wait, for all threads."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._waiting: list[tuple[float, Place, Link]] = []
        """The connections, each with the time when it was put here; the oldest first."""

    def put(self, place: Place, wire: Wire, protocol: h11.Connection) -> None:
        """Take over a connection whose request and response are over; it is closed if it cannot be used again."""
        clean = protocol.our_state is h11.DONE and protocol.their_state is h11.DONE and not protocol.trailing_data[0]
        if not clean or wire.out or wire.plain:
            wire.close()
            return
        protocol.start_next_cycle()
        with self._lock:
            self._waiting.append((time.monotonic(), place, Link(wire, protocol)))
            same = [entry for entry in self._waiting if entry[1] == place]
            surplus = same[:-MOST_EACH] or self._waiting[:-MOST]
            for entry in surplus:
                self._waiting.remove(entry)
        for _, _, link in surplus:
            link.wire.close()

    def take(self, place: Place) -> Link | None:
        """A connection to that place which seems to be open; it is the caller's then. None if there is none."""
        self.tidy()
        while True:
            with self._lock:
                found = next((entry for entry in reversed(self._waiting) if entry[1] == place), None)
                if found is None:
                    return None
                self._waiting.remove(found)
            link = found[2]
            if _is_quiet(link.wire):
                return link
            link.wire.close()

    def close(self) -> None:
        """Close all that wait."""
        with self._lock:
            closed, self._waiting = self._waiting, []
        for _, _, link in closed:
            link.wire.close()

    def tidy(self) -> bool:
        """Close connections that have waited for too long. Returns whether any are left."""
        late = time.monotonic() - IDLE_SECONDS
        with self._lock:
            closed = [entry for entry in self._waiting if entry[0] < late]
            self._waiting = self._waiting[len(closed) :]
        for _, _, link in closed:
            link.wire.close()
        return bool(self._waiting)


def _is_quiet(wire: Wire) -> bool:
    """Whether nothing has come over a connection: neither its end, nor bytes that nobody has asked for."""
    try:
        return wire.receive() is None
    except Broken:
        return False
