"""The revisions of a StatefulSet's template, each kept as a ControllerRevision.

`kubectl rollout history` and `undo` read them. The rules are those of kubernetes/pkg/controller/history.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wasmlet.controlplane.controllers.workloads.adoption import adopt
from wasmlet.controlplane.controllers.workloads.ownership import Ownership, controller_reference, uid_of
from wasmlet.controlplane.controllers.workloads.revisions import short_hash
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage import selectors
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Record

PLURAL = "controllerrevisions"
HASH = "controller.kubernetes.io/hash"
_PREFIX = 223
_TRIES = 8


def template_of(revision: Record) -> Object:
    """The template that a revision keeps."""
    template: Object = revision.raw["data"]["spec"]["template"]
    return {key: value for key, value in template.items() if key != "$patch"}


def _number(revision: Record) -> int:
    return int(revision.raw.get("revision") or 0)


class History:
    """The revisions of StatefulSets, in the store."""

    def __init__(self, registry: Registry, deletion: Deletion, ownership: Ownership) -> None:
        self._registry = registry
        self._deletion = deletion
        self._ownership = ownership

    def adopt(self, owner: Record) -> None:
        """Take the revisions that the selector chooses and nobody controls."""
        wanted = selectors.of_object(owner.raw["spec"]["selector"])
        adopt(self._registry.store, self._ownership, owner, core(PLURAL), wanted, _is_template)

    def settle(self, owner: Record) -> tuple[Record, Record, int]:
        """The current revision, the one of the present template (made where there is none), and the collisions so far.

        Raises:
            ApiError: a revision is refused.
        """
        found = self._all(owner)
        status = owner.raw.get("status") or {}
        update, collisions = self._update(owner, found, int(status.get("collisionCount") or 0))
        current = next((item for item in found if item.name == status.get("currentRevision")), update)
        return current, update, collisions

    def _all(self, owner: Record) -> list[Record]:
        """All revisions, in the order of their numbers."""
        found = [item for item in self._ownership.controlled(owner, PLURAL) if _is_template(item.raw)]
        return sorted(found, key=lambda item: (_number(item), item.raw["metadata"]["creationTimestamp"], item.name))

    def _update(self, owner: Record, found: list[Record], collisions: int) -> tuple[Record, int]:
        template = owner.raw["spec"]["template"]
        number = _number(found[-1]) + 1 if found else 1
        equal = [item for item in found if template_of(item) == template]
        if not equal:
            return self._create(owner, template, number, collisions)
        if equal[-1] is found[-1]:
            return equal[-1], collisions
        call = Call(core(PLURAL), owner.namespace, equal[-1].name)
        return self._registry.replace(call, equal[-1], {**equal[-1].raw, "revision": number}), collisions

    def _create(self, owner: Record, template: Object, number: int, collisions: int) -> tuple[Record, int]:
        call = Call(core(PLURAL), owner.namespace)
        for more in range(_TRIES):
            body = _body(owner, template, number, collisions + more)
            try:
                return self._registry.create(call, body), collisions + more
            except ApiError as error:
                if error.reason != "AlreadyExists" or more == _TRIES - 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def truncate(self, owner: Record, live: Iterable[str]) -> None:
        """Delete the oldest revisions beyond `revisionHistoryLimit`, except those in use, `live`."""
        limit, used = int(owner.raw["spec"].get("revisionHistoryLimit", 10)), set(live)
        past = [item for item in self._all(owner) if item.name not in used]
        for item in past[: len(past) - limit if limit >= 0 and len(past) > limit else 0]:
            options = Options(uid=uid_of(item.raw))
            self._deletion.delete(Call(core(PLURAL), item.namespace, item.name), item, options)


def _is_template(raw: Object) -> bool:
    data: Any = raw.get("data")
    spec = data.get("spec") if isinstance(data, dict) else None
    return isinstance(spec, dict) and isinstance(spec.get("template"), dict)


def _body(owner: Record, template: Object, number: int, collisions: int) -> Object:
    data = {"spec": {"template": {**template, "$patch": "replace"}}}
    hashed = short_hash([data, collisions])
    metadata: Object = {
        "name": f"{owner.name[:_PREFIX]}-{hashed}",
        "labels": {**((template.get("metadata") or {}).get("labels") or {}), HASH: hashed},
        "ownerReferences": [controller_reference(owner)],
    }
    if annotations := owner.raw["metadata"].get("annotations"):
        metadata["annotations"] = dict(annotations)
    return {"metadata": metadata, "data": data, "revision": number}
