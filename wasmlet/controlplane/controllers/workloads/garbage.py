"""The garbage collector: deletes objects whose owners are deleted, or keeps them, as the delete of the owner asked.

The rules are those of kubernetes/pkg/controller/garbagecollector. An object all of whose owners are gone is deleted. An
object that has another owner loses only the references to owners that are gone. With the finalizer
`foregroundDeletion`, an owner is kept until the dependents that block it are deleted. With the finalizer `orphan`,
dependents stay. An owner of a kind that this API server does not serve is taken to exist.
"""

from __future__ import annotations

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.workloads.ownership import Ownership, owners, uid_of
from wasmlet.controlplane.controllers.workloads.pods import leaving
from wasmlet.controlplane.controllers.workloads.queue import Key, Queue
from wasmlet.controlplane.objects.deletion import FINALIZERS, Deletion, Options
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Event, Record


def _finalizers(raw: Object) -> list[str]:
    return list(raw["metadata"].get("finalizers") or ())


def _waits(raw: Object) -> bool:
    """Whether an object that is being deleted waits for its dependents."""
    return leaving(raw) and FINALIZERS["Foreground"] in _finalizers(raw)


class GarbageCollector:
    """Deletes what deleted owners leave behind. `run` does so; it follows the store from its construction."""

    def __init__(self, registry: Registry, deletion: Deletion, ownership: Ownership, clock: Clock) -> None:
        self._registry = registry
        self._catalog = registry.store.catalog
        self._deletion = deletion
        self._ownership = ownership
        self._queue = Queue(clock, self._settle)
        registry.store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        raw = event.record.raw
        uid = uid_of(raw)
        references = owners(raw)
        if event.change == "DELETED":
            self._queue.forget((kind.key, uid))
            for plural, dependent in self._ownership.dependents(uid):
                self._queue.add((plural, uid_of(dependent.raw)))
            for reference in references:  # an owner may have waited for this one
                if (owner := self._ownership.find(str(reference.get("uid")))) and leaving(owner[1].raw):
                    self._queue.add((owner[0], uid_of(owner[1].raw)))
        elif (leaving(raw) and _finalizers(raw)) or (
            references and not all(self._is_there(reference, event.record) for reference in references)
        ):
            self._queue.add((kind.key, uid))

    def _is_there(self, reference: Object, dependent: Record) -> bool:
        """Whether the owner that a reference names exists, with that UID, kind and name, in the same namespace or none.

        An object of no namespace cannot name an owner in one; such a reference is left alone.
        """
        kind = self._catalog.called(str(reference.get("apiVersion")), str(reference.get("kind")))
        if kind is None or (kind.namespaced and not dependent.namespace):
            return True
        found = self._ownership.find(str(reference.get("uid")))
        if found is None or (found[0], found[1].name) != (kind.key, reference.get("name")):
            return False
        return not kind.namespaced or found[1].namespace == dependent.namespace

    async def run(self) -> None:
        """Delete what nobody owns any longer, until cancelled."""
        await self._queue.run()

    def _settle(self, key: Key) -> None:
        found = self._ownership.find(key[1])
        if found is None:
            return
        kind, record = self._catalog.of_key(found[0]), found[1]
        if leaving(record.raw):
            self._finish(kind, record)
        else:
            self._check_owners(kind, record)

    def _finish(self, kind: Kind, owner: Record) -> None:
        """Handle the dependents of an object that is being deleted, as its finalizers say."""
        uid, finalizers = uid_of(owner.raw), _finalizers(owner.raw)
        if FINALIZERS["Orphan"] in finalizers:
            for plural, dependent in self._ownership.dependents(uid):
                self._drop_owners(self._catalog.of_key(plural), dependent, {uid})
            self._deletion.release(kind, owner, FINALIZERS["Orphan"])
        elif FINALIZERS["Foreground"] in finalizers:
            for plural, dependent in self._ownership.dependents(uid):
                if not leaving(dependent.raw):
                    self._check_owners(self._catalog.of_key(plural), dependent)
            blocking = [record for _, record in self._ownership.dependents(uid) if _blocks(record, uid)]
            if not blocking:
                self._deletion.release(kind, owner, FINALIZERS["Foreground"])

    def _check_owners(self, kind: Kind, record: Record) -> None:
        """Delete an object whose owners are all gone or wait for its deletion; else remove only such references."""
        gone, solid, waiting = set(), False, False
        for reference in owners(record.raw):
            uid = str(reference.get("uid"))
            owner = self._ownership.find(uid)
            if not self._is_there(reference, record):
                gone.add(uid)
            elif owner is not None and _waits(owner[1].raw):
                gone.add(uid)
                waiting = True
            else:
                solid = True
        if not gone:
            return
        if solid:
            self._drop_owners(kind, record, gone)
            return
        before = waiting and bool(self._ownership.dependents(uid_of(record.raw)))
        options = Options(uid=uid_of(record.raw), propagation="Foreground" if before else "Background")
        self._deletion.delete(Call(kind, record.namespace, record.name), record, options)

    def _drop_owners(self, kind: Kind, record: Record, uids: set[str]) -> None:
        kept = [reference for reference in owners(record.raw) if str(reference.get("uid")) not in uids]
        metadata = {key: value for key, value in record.raw["metadata"].items() if key != "ownerReferences"}
        if kept:
            metadata["ownerReferences"] = kept
        self._registry.store.write(kind, {**record.raw, "metadata": metadata})


def _blocks(dependent: Record, uid: str) -> bool:
    return any(item.get("uid") == uid and item.get("blockOwnerDeletion") for item in owners(dependent.raw))
