"""Limits the number and the bytes of stored events: beyond a limit, the oldest is deleted.

A cluster's API server deletes an event after an hour; here the memory that events take has to be limited.
"""

from __future__ import annotations

from collections import deque

from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.store import Event, Store

EVENTS = 5000
EVENTS_BYTES = 16 * 2**20
"""The most bytes that all events may have together, as JSON."""


class Retention:
    """Follows the store and removes the oldest events."""

    def __init__(self, store: Store, limit: int = EVENTS) -> None:
        self._store = store
        self._limit = limit
        self._known: deque[tuple[tuple[str, str], int]] = deque()
        self._bytes = 0
        store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        if kind.key != "events" or event.change != "ADDED":
            return
        self._known.append((event.record.key, size := len(event.record.json)))
        self._bytes += size
        while len(self._known) > self._limit or (self._bytes > EVENTS_BYTES and len(self._known) > 1):
            key, size = self._known.popleft()
            self._bytes -= size
            old = self._store["events"].get(*key)
            if old is not None:
                self._store.remove(core("events"), old)
