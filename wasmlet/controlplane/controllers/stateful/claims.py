"""The volume claims of a StatefulSet's pods: created with the pod, and owned as the retention policy says.

The rules are those of kubernetes/pkg/controller/statefulset. The garbage collector deletes a claim with its owner. So a
claim that is to be deleted with the StatefulSet is owned by the StatefulSet. One that is to be deleted when the
StatefulSet shrinks is owned by the pod that is removed. A claim that is kept has no owner.
"""

from __future__ import annotations

from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.controllers.stateful import identity
from wasmlet.controlplane.controllers.workloads.ownership import controller_reference, owners, uid_of
from wasmlet.controlplane.controllers.workloads.pods import leaving
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Record

PLURAL = "persistentvolumeclaims"


def _policy(owner: Object) -> tuple[bool, bool]:
    """Whether claims are deleted with the StatefulSet, and whether they are when it shrinks."""
    given = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return given.get("whenDeleted") == "Delete", given.get("whenScaled") == "Delete"


class Claims:
    """The claims of StatefulSets, in the store."""

    def __init__(self, registry: Registry, events: Recorder) -> None:
        self._registry = registry
        self._events = events

    def make(self, owner: Record, number: int) -> None:
        """Create the claims of an ordinal that do not exist.

        Raises:
            ApiError: a claim is refused, or one is being deleted.
        """
        for body in identity.claims(owner, number):
            name, pod = body["metadata"]["name"], f"{owner.name}-{number}"
            found = self._registry.store[PLURAL].get(owner.namespace, name)
            if found is not None:
                if leaving(found.raw):
                    raise ApiError(409, "Conflict", f"pvc {name} is being deleted")
                continue
            try:
                self._registry.create(Call(core(PLURAL), owner.namespace), body)
            except ApiError as error:
                message = f"Create Claim {name} for Pod {pod} in StatefulSet {owner.name} failed error: {error.message}"
                self._events.tell(owner, "Warning", "FailedCreate", message)
                raise
            message = f"Create Claim {name} Pod {pod} in StatefulSet {owner.name} success"
            self._events.tell(owner, "Normal", "SuccessfulCreate", message)

    def stale(self, owner: Record, number: int) -> bool:
        """Whether a claim is still owned by an old pod of that name which is gone, so that it will be deleted, too."""
        if not _policy(owner.raw)[1]:
            return False
        name = f"{owner.name}-{number}"
        return any(
            (item.get("kind"), item.get("name")) == ("Pod", name)
            for claim in self._found(owner, number)
            for item in owners(claim.raw)
        )

    def own(self, owner: Record, pod: Record, number: int) -> None:
        """Set the owner of a pod's claims by the retention policy: the StatefulSet, the pod, or nobody."""
        with_set, with_pod = _policy(owner.raw)
        condemned = number not in identity.ordinals(owner.raw)
        wanted: Record | None = owner if with_set else None
        if with_pod and condemned:
            wanted = pod
        mine = {uid_of(owner.raw), uid_of(pod.raw)}
        for claim in self._found(owner, number):
            have = owners(claim.raw)
            others = [item for item in have if item.get("uid") not in mine]
            if wanted is not None and not any(item.get("controller") for item in others):
                others.append(controller_reference(wanted))
            if others != have:
                metadata = {**claim.raw["metadata"], "ownerReferences": others}
                call = Call(core(PLURAL), claim.namespace, claim.name)
                self._registry.replace(call, claim, {**claim.raw, "metadata": metadata})

    def _found(self, owner: Record, number: int) -> list[Record]:
        templates = owner.raw["spec"].get("volumeClaimTemplates") or ()
        names = (identity.claim_name(owner.name, item, number) for item in templates)
        found = (self._registry.store[PLURAL].get(owner.namespace, name) for name in names)
        return [claim for claim in found if claim is not None]
