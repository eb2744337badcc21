"""Reads the PersistentVolumeClaims of the node's pods, and the PersistentVolumes that they are bound to, by name.

The Node authorizer lets a node read the claims of its own pods and their volumes one by one, and watch neither. A
binding does not change. So the claims of a pod are read until all are bound, and then never again for that pod.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

import attrs
import structlog

from wasmlet.clock import Backoff, Clock
from wasmlet.kube import Client, errors, paths
from wasmlet.model.pod import Pod, Raw

log = structlog.get_logger(__name__)

LOOKS = Backoff(initial=1, cap=60, jitter=0.5)
"""The pauses between two reads of claims that are not bound yet."""


@attrs.frozen
class BoundClaims:
    """Claims, and the volumes of those that are bound, each by the name of the claim."""

    claims: Mapping[str, Raw] = attrs.field(factory=dict)
    volumes: Mapping[str, Raw] = attrs.field(factory=dict)


def claims_of(pod: Pod) -> frozenset[str]:
    """The names of the pod's claims. The claim of an ephemeral volume is named after the pod and the volume."""
    found = set()
    for volume in pod.spec.get("volumes") or ():
        if (source := volume.get("persistentVolumeClaim")) is not None:
            found.add(str(source.get("claimName") or ""))
        elif volume.get("ephemeral") is not None:
            found.add(f"{pod.name}-{volume['name']}")
    return frozenset(found - {""})


class ClaimStore:
    """Knows the claims of the node's pods.

    Args:
        changed: called with the UID of a pod once all its claims are bound, if `bound` found that one was not.
    """

    def __init__(
        self, client: Client, group: asyncio.TaskGroup, changed: Callable[[str], None], clock: Clock, rng: random.Random
    ) -> None:
        self._client = client
        self._group = group
        self._changed = changed
        self._clock = clock
        self._rng = rng
        self._bound: dict[str, BoundClaims] = {}
        """By UID, for the pods whose claims are all bound."""
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def bound(self, pod: Pod) -> BoundClaims:
        """The pod's claims as they are now. If one is not bound, a task goes on reading them until all are."""
        if not (names := claims_of(pod)):
            return BoundClaims()
        if (known := self._bound.get(pod.uid)) is not None:
            return known
        found = await self._read(pod.namespace, names)
        if len(found.volumes) == len(names):
            self._bound[pod.uid] = found
        elif pod.uid not in self._looking:
            self._looking[pod.uid] = self._group.create_task(self._look(pod, names))
        return found

    def release(self, uid: str) -> None:
        """The pod is gone."""
        self._bound.pop(uid, None)
        if (task := self._looking.pop(uid, None)) is not None:
            task.cancel()

    async def _look(self, pod: Pod, names: frozenset[str]) -> None:
        pauses = self._client.recovery.pauses(LOOKS, self._clock, self._rng)
        while True:
            await pauses.wait()
            found = await self._read(pod.namespace, names)
            if len(found.volumes) == len(names):
                break
        self._bound[pod.uid] = found
        del self._looking[pod.uid]
        self._changed(pod.uid)

    async def _read(self, namespace: str, names: frozenset[str]) -> BoundClaims:
        claims, volumes = {}, {}
        for name in sorted(names):
            claim = await self._get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", name)
            if claim is None:
                continue
            claims[name] = claim
            volume = (claim.get("spec") or {}).get("volumeName")
            if volume and (claim.get("status") or {}).get("phase") == "Bound":
                found = await self._get("/api/v1/persistentvolumes", volume)
                if found is not None and _is_of(found, claim):
                    volumes[name] = found
        return BoundClaims(claims, volumes)

    async def _get(self, collection: str, name: str) -> Raw | None:
        """The object, where the API server gives it now."""
        try:
            return await self._client.get(paths.named(collection, name))
        except errors.ObjectNotFound:
            return None
        except errors.ApiError as error:  # it may not know yet that the pod is on this node
            log.debug("a claim cannot be read yet", collection=collection, name=name, error=str(error))
            return None


def _is_of(volume: Raw, claim: Raw) -> bool:
    """Whether the volume is bound to this very claim, as a kubelet looks before it mounts."""
    uid = ((volume.get("spec") or {}).get("claimRef") or {}).get("uid")
    return bool(uid == claim["metadata"]["uid"])
