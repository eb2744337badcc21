"""Keeps events from piling up: beyond a number, or beyond so many bytes, the oldest is deleted.

An API server deletes an event after an hour; this one has to bound the memory that events take.
"""

from __future__ import annotations

from collections import deque

from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.store import Event, Store

EVENTS = 5000
EVENTS_BYTES = 16 * 2**20
"""How many bytes they have together, as JSON."""


class Retention:
    """Listens to the store and removes the eldest events."""

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
