"""Deleting objects: graceful deletion of pods, finalizers, preconditions, collections, and what a namespace contains.

The rules are those of `rest.BeforeDelete` and the pod strategy. A pod that is on no node or is finished is removed at
once. Any other pod gets a deletionTimestamp, and is removed when its node deletes it with grace 0. Dependents of a
deleted object are the work of `controllers.workloads.garbage`: a finalizer tells it the propagation policy, and without
one it deletes them once their owner is gone. A namespace's contents are deleted here, as no controller does that.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs

from wasmlet.controlplane.extensions.definitions import DEFINITION, doomed
from wasmlet.controlplane.objects.pod_rules import TERMINAL
from wasmlet.controlplane.objects.registry import Call, Registry, rfc3339
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import Cause, Object, bad_request
from wasmlet.controlplane.storage.store import Event, Record
from wasmlet.model.pod import MOST_GRACE_SECONDS

_PERMANENT = ("default", "kube-system", "kube-public")
"""Namespaces that the API server never deletes."""


FINALIZERS = {"Background": "", "Foreground": "foregroundDeletion", "Orphan": "orphan"}
"""The propagation policies, each with its finalizer."""


@attrs.frozen
class Options:
    """The DeleteOptions that have an effect here. `grace` is in seconds; None means the object's own."""

    grace: int | None = None
    uid: str | None = None
    version: str | None = None
    propagation: str = "Background"

    @classmethod
    def parse(cls, body: Any, grace: str | None, propagation: str | None = None) -> Options:
        """Read the body of a DELETE, and its parameters gracePeriodSeconds and propagationPolicy.

        Raises:
            ApiError: 400, these are no valid DeleteOptions.
        """
        body = body or {}
        if not isinstance(body, dict):
            raise bad_request("the body of a delete is an object of kind DeleteOptions")
        seconds = body.get("gracePeriodSeconds")
        if seconds is None and grace:
            try:
                seconds = int(grace)
            except ValueError:
                raise bad_request(f"gracePeriodSeconds is a number of seconds, found {grace!r}") from None
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int)):
            raise bad_request(f"gracePeriodSeconds is a number of seconds, found {seconds!r}")
        conditions = body.get("preconditions") or {}
        if not isinstance(conditions, dict):
            raise bad_request("preconditions is an object")
        policy = body.get("propagationPolicy") or propagation or "Background"
        if policy not in FINALIZERS:
            raise bad_request(f"propagationPolicy is one of {', '.join(FINALIZERS)}, found {policy!r}")
        return cls(seconds, conditions.get("uid"), conditions.get("resourceVersion"), policy)


def _held(raw: Object, propagation: str) -> Object:
    """The object with the finalizer of a propagation policy, which keeps it until the policy is carried out."""
    finalizer, finalizers = FINALIZERS[propagation], list(raw["metadata"].get("finalizers") or ())
    if not finalizer or finalizer in finalizers:
        return raw
    return {**raw, "metadata": {**raw["metadata"], "finalizers": [*finalizers, finalizer]}}


class Deletion:
    """Carries out all deletes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._store = registry.store
        registry.finish = self.finish
        self._store.listeners.append(self._on_change)

    def delete(self, call: Call, old: Record, options: Options) -> tuple[Record, bool]:
        """Delete an object, or begin to. Returns the object as it is then, and whether it is gone.

        Raises:
            ApiError: 403, a node deletes what is not its own; 409, a precondition does not hold.
        """
        self.check(call, old, options)
        kind, raw = call.kind, _held(old.raw, options.propagation)
        meta = raw["metadata"]
        if kind == DEFINITION and "deletionTimestamp" not in meta:
            raw = doomed(raw, self._registry.now())
            meta = raw["metadata"]
        if call.dry_run:
            return old, kind.key != "pods"
        if kind.key == "namespaces":
            return self._namespace(call, old)
        grace = self._grace(kind, raw, options.grace)
        if grace is None:
            return old, False
        marked, now = old, grace == 0 and not meta.get("finalizers")
        if not now or kind.key == "pods":  # of what can be deleted with grace, watches see this change first
            marked = self._store.write(kind, self._mark(raw, grace))
        return (self._store.remove(kind, marked), True) if now else (marked, False)

    def check(self, call: Call, old: Record, options: Options) -> None:
        """Check that a delete is allowed, before anything is changed.

        Raises:
            ApiError: 403, a node deletes what is not its own; 409, a precondition does not hold; 422, an option is
                wrong.
        """
        kind, meta = call.kind, old.raw["metadata"]
        self._registry.restriction.delete(call.user, kind, old.raw)
        if options.uid is not None and options.uid != meta["uid"]:
            why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {meta['uid']}"
            raise status.conflict(kind, old.name, why)
        if options.version is not None and options.version != meta["resourceVersion"]:
            why = (
                f"Precondition failed: ResourceVersion in precondition: {options.version}, "
                f"ResourceVersion in object meta: {meta['resourceVersion']}"
            )
            raise status.conflict(kind, old.name, why)
        if options.grace is not None and options.grace < 0:
            causes = [Cause.invalid("gracePeriodSeconds", options.grace, "must be greater than or equal to 0")]
            raise status.invalid(kind, old.name, causes)

    def _grace(self, kind: Kind, raw: Object, asked: int | None) -> int | None:
        """The grace period in seconds; None if the object is already being deleted and this changes nothing."""
        meta = raw["metadata"]
        if "deletionTimestamp" in meta:
            current = meta.get("deletionGracePeriodSeconds")
            if current is None:
                return 0
            return None if asked is None or asked >= current else asked
        if kind.key != "pods":
            return 0
        spec = raw["spec"]
        seconds = asked if asked is not None else int(spec.get("terminationGracePeriodSeconds", 30))
        if not spec.get("nodeName") or (raw.get("status") or {}).get("phase") in TERMINAL:
            seconds = 0
        return 1 if seconds < 0 else min(seconds, MOST_GRACE_SECONDS)

    def _mark(self, raw: Object, grace: int) -> Object:
        meta = dict(raw["metadata"])
        start = self._registry.clock.now()
        if "deletionTimestamp" in meta:
            until = datetime.fromisoformat(meta["deletionTimestamp"])
            start = until - timedelta(seconds=meta.get("deletionGracePeriodSeconds", 0))
        elif "generation" in meta:
            meta["generation"] += 1
        meta["deletionTimestamp"] = rfc3339(start + timedelta(seconds=grace))
        meta["deletionGracePeriodSeconds"] = grace
        return {**raw, "metadata": meta}

    def finish(self, kind: Kind, old: Record, new: Object) -> bool:
        """Remove an object that is being deleted if nothing of what it is to be keeps it: finalizers, a grace period.

        Then that is not written: watches show the object as it was, and that it is gone, as those of a cluster do.
        """
        meta = new["metadata"]
        kept = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds") or kind.key == "namespaces"
        if "deletionTimestamp" not in meta or kept:
            return False
        self._store.remove(kind, old)
        return True

    def release(self, kind: Kind, record: Record, finalizer: str) -> None:
        """Remove a finalizer from an object; if nothing else keeps an object that is being deleted, remove it, too."""
        meta = record.raw["metadata"]
        rest = [name for name in meta.get("finalizers") or () if name != finalizer]
        kept = {key: value for key, value in meta.items() if key != "finalizers"}
        changed = {**record.raw, "metadata": {**kept, "finalizers": rest} if rest else kept}
        if not self.finish(kind, record, changed):
            self._store.write(kind, changed)

    # -- collections

    def collection(self, call: Call, records: Iterable[Record], options: Options) -> list[Record]:
        """Delete the objects of a collection that a selector matched; objects that are gone meanwhile are skipped."""
        out = []
        for record in records:
            found = self._store.of(call.kind).get(record.namespace, record.name)
            if found is not None:
                out.append(self.delete(call, found, options)[0])
        return out

    # -- namespaces

    def _namespace(self, call: Call, old: Record) -> tuple[Record, bool]:
        if old.name in _PERMANENT:
            raise status.forbidden(call.kind, old.name, "this namespace may not be deleted")
        if "deletionTimestamp" not in old.raw["metadata"]:
            marked = {**self._mark(old.raw, 0), "status": {**old.raw.get("status", {}), "phase": "Terminating"}}
            marked["metadata"].pop("deletionGracePeriodSeconds")
            old = self._store.write(call.kind, marked)
        for kind in self._store.catalog.stored():
            if not kind.namespaced:
                continue
            for record in list(self._store.of(kind).spaces.get(old.name, {}).values()):
                self.delete(Call(kind, record.namespace, record.name), record, Options())
        return self._if_empty(old.name) or old, self._store["namespaces"].get("", old.name) is None

    def _if_empty(self, name: str) -> Record | None:
        """Remove a namespace that is being deleted and has nothing left in it."""
        kind = core("namespaces")
        record = self._store.of(kind).get("", name)
        if record is None or "deletionTimestamp" not in record.raw["metadata"]:
            return None
        if record.raw["metadata"].get("finalizers"):
            return None
        if any(collection.spaces.get(name) for collection in self._store.collections.values() if name):
            return None
        return self._store.remove(kind, record)

    def _on_change(self, kind: Kind, event: Event) -> None:
        if event.change == "DELETED" and kind.namespaced:
            self._if_empty(event.record.namespace)
        elif kind.key == "namespaces" and event.change == "MODIFIED":
            self._if_empty(event.record.name)
