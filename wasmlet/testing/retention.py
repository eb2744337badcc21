"""Keeps events from piling up: beyond a number the eldest is forgotten.

An API server forgets an event after an hour; a control plane in memory had better go by their number.
"""

from __future__ import annotations

from collections import deque

from wasmlet.testing.kinds import Kind, core
from wasmlet.testing.store import Event, Store

EVENTS = 5000


class Retention:
    """Listens to the store and removes the eldest events."""

    def __init__(self, store: Store, limit: int = EVENTS) -> None:
        self._store = store
        self._limit = limit
        self._known: deque[tuple[str, str]] = deque()
        store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        if kind.plural != "events" or event.change != "ADDED":
            return
        self._known.append(event.record.key)
        while len(self._known) > self._limit:
            old = self._store["events"].get(*self._known.popleft())
            if old is not None:
                self._store.remove(core("events"), old)
