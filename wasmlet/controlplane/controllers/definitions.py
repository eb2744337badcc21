"""The controller of CustomResourceDefinitions: deletes the objects of a deleted definition, and accepts freed names.

A finalizer keeps a deleted definition until its last object is gone (`controller/finalizer` of
apiextensions-apiserver). Then another definition of the group that wants the same names can have them
(`controller/status`).
"""

from __future__ import annotations

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.workloads.queue import Key, Queue
from wasmlet.controlplane.extensions.definitions import DEFINITION, FINALIZER
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.store import Event, Record


class CustomResourceCleanup:
    """Follows the store from its construction on; `run` acts on what it saw."""

    def __init__(self, registry: Registry, deletion: Deletion, clock: Clock) -> None:
        self._registry = registry
        self._store = registry.store
        self._deletion = deletion
        self._queue = Queue(clock, self._settle)
        self._store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        if kind.custom and event.change == "DELETED":
            self._queue.add(("", kind.key))
        elif kind == DEFINITION:
            if event.change == "DELETED":
                self._queue.forget(("", event.record.name))
            self._look_at_all(event.record)

    def _look_at_all(self, changed: Record) -> None:
        """Queue all definitions of the group of a definition that has changed, as names may have become free."""
        group = changed.raw["spec"]["group"]
        for record in self._store.of(DEFINITION):
            if record.raw["spec"]["group"] == group:
                self._queue.add(("", record.name))

    async def run(self) -> None:
        """Do what is to do, until cancelled."""
        await self._queue.run()

    def _settle(self, key: Key) -> None:
        definition = self._store.of(DEFINITION).get(*key)
        if definition is None:
            return
        if "deletionTimestamp" in definition.raw["metadata"]:
            self._empty(definition)
            return
        status = self._registry.definitions.accept(definition.raw, self._registry.now())
        if status != definition.raw.get("status"):
            self._store.write(DEFINITION, {**definition.raw, "status": status})

    def _empty(self, definition: Record) -> None:
        """Delete the objects of a definition that is being deleted; remove its finalizer once there are none."""
        collection = self._store.collections.get(definition.name)
        left = list(collection) if collection is not None else []
        if not left and FINALIZER in (definition.raw["metadata"].get("finalizers") or ()):
            self._deletion.release(DEFINITION, definition, FINALIZER)
        for record in left:
            if "deletionTimestamp" not in record.raw["metadata"] and collection is not None:
                self._deletion.delete(Call(collection.kind, record.namespace, record.name), record, Options())
