"""An index of the `ownerReferences` of all objects. It follows the store's changes, so nobody has to search."""

from __future__ import annotations

from typing import Any

from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Event, Record, Store

_CONTROLLED = ("pods", "replicasets", "controllerrevisions")
"""The kinds whose orphans (objects without a controller) are indexed."""
Place = tuple[str, str, str]
"""Where an object is: the key of its kind, its namespace, its name."""


def owners(raw: Object) -> list[Object]:
    """The owner references of an object."""
    found = raw["metadata"].get("ownerReferences")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def controller_of(raw: Object) -> Object | None:
    """The reference to the one owner that controls an object (`metav1.GetControllerOf`)."""
    return next((item for item in owners(raw) if item.get("controller")), None)


def controller_reference(owner: Record) -> Object:
    """A reference by which an object is controlled by its owner (`metav1.NewControllerRef`)."""
    raw = owner.raw
    return {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "name": owner.name,
        "uid": uid_of(raw),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def uid_of(raw: Object) -> str:
    return str(raw["metadata"]["uid"])


class Ownership:
    """The owners and dependents of every object in the store; follows it from construction on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: dict[str, Place] = {}
        self._owners: dict[Place, frozenset[str]] = {}
        self._dependents: dict[str, dict[Place, None]] = {}
        self._orphans: dict[tuple[str, str], dict[str, None]] = {}
        for key, collection in store.collections.items():
            for record in collection:
                self._note(key, record, gone=False)
        store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        self._note(kind.key, event.record, gone=event.change == "DELETED")

    def _note(self, key: str, record: Record, *, gone: bool) -> None:
        if key == "events":  # there are many, and they neither own nor are owned
            return
        metadata: dict[str, Any] = record.raw["metadata"]
        place, uid = (key, record.namespace, record.name), str(metadata["uid"])
        if gone:
            self._places.pop(uid, None)
        else:
            self._places[uid] = place
        if key in _CONTROLLED:
            orphans = self._orphans.setdefault((key, record.namespace), {})
            if gone or controller_of(record.raw) is not None:
                orphans.pop(record.name, None)
            else:
                orphans[record.name] = None
        if not metadata.get("ownerReferences") and place not in self._owners:
            return
        now = frozenset() if gone else frozenset(str(item.get("uid")) for item in owners(record.raw))
        before = self._owners.pop(place, frozenset())
        if now:
            self._owners[place] = now
        for owner in before - now:
            self._dependents[owner].pop(place, None)
            if not self._dependents[owner]:
                del self._dependents[owner]
        for owner in now - before:
            self._dependents.setdefault(owner, {})[place] = None

    def find(self, uid: str) -> tuple[str, Record] | None:
        """The object of a UID, with the key of its kind."""
        place = self._places.get(uid)
        record = self._at(place) if place else None
        return (place[0], record) if place and record else None

    def _at(self, place: Place) -> Record | None:
        collection = self._store.collections.get(place[0])
        return collection.get(*place[1:]) if collection else None

    def dependents(self, uid: str) -> list[tuple[str, Record]]:
        """The objects that name an owner of this UID, with the key of their kind."""
        found = [(place[0], self._at(place)) for place in self._dependents.get(uid, ())]
        return [(key, record) for key, record in found if record is not None]

    def controlled(self, owner: Record, plural: str) -> list[Record]:
        """The objects of a kind that an owner controls."""
        uid = uid_of(owner.raw)
        return [record for known, record in self.dependents(uid) if known == plural and _controls(uid, record)]

    def orphans(self, plural: str, namespace: str) -> list[Record]:
        """The objects of a kind in a namespace that nobody controls; of pods, ReplicaSets and ControllerRevisions."""
        found = (self._store[plural].get(namespace, name) for name in self._orphans.get((plural, namespace), ()))
        return [record for record in found if record is not None]


def _controls(uid: str, record: Record) -> bool:
    reference = controller_of(record.raw)
    return reference is not None and reference.get("uid") == uid
