"""The arithmetic of a rollout: how many surplus or missing pods are allowed, and the sizes of the ReplicaSets.

The rules are those of kubernetes/pkg/controller/deployment/util. Nothing here reads or writes objects of the store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from wasmlet.controlplane.storage.status import Object

DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"


def rolling(deployment: Object) -> bool:
    """Whether new pods come before the old ones have gone."""
    return bool((deployment["spec"].get("strategy") or {}).get("type") == "RollingUpdate")


def replicas(obj: Object) -> int:
    """How many replicas a Deployment or ReplicaSet is to have."""
    return int(obj["spec"].get("replicas") or 0)


def _part(value: Any, total: int, *, up: bool) -> int:
    """A number, or a share of `total` in percent."""
    if isinstance(value, str):
        share = int(value.rstrip("%")) * total / 100
        return math.ceil(share) if up else math.floor(share)
    return int(value or 0)


def limits(deployment: Object) -> tuple[int, int]:
    """How many surplus pods, and how many unavailable pods, are allowed (`ResolveFenceposts`)."""
    if not rolling(deployment):
        return 0, 0
    strategy, total = deployment["spec"]["strategy"].get("rollingUpdate") or {}, replicas(deployment)
    surge = _part(strategy.get("maxSurge"), total, up=True)
    unavailable = _part(strategy.get("maxUnavailable"), total, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, total)


def most(deployment: Object) -> int:
    """How many pods there may be in total."""
    return replicas(deployment) + limits(deployment)[0]


def noted_sizes(deployment: Object) -> dict[str, str]:
    """Annotations with the Deployment's size, by which a later look tells whether the size has changed."""
    return {DESIRED: str(replicas(deployment)), MOST: str(most(deployment))}


def new_size(deployment: Object, total: int, present: int) -> int:
    """How large the new ReplicaSet may become, `present` of all `total` pods being its own (`NewRSNewReplicas`)."""
    wanted = replicas(deployment)
    if not rolling(deployment):
        return wanted
    return present + max(0, min(most(deployment) - total, wanted - present))


def _noted(replica_set: Object, key: str) -> int | None:
    text = (replica_set["metadata"].get("annotations") or {}).get(key, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def desired(replica_set: Object) -> int | None:
    """The size of the Deployment when the ReplicaSet was scaled last."""
    return _noted(replica_set, DESIRED)


def _share(deployment: Object, replica_set: Object) -> int:
    """By how much a ReplicaSet grows or shrinks with its Deployment (`getReplicaSetFraction`)."""
    size = replicas(replica_set)
    if replicas(deployment) == 0:
        return -size
    before = _noted(replica_set, MOST) or int((deployment.get("status") or {}).get("replicas") or 0)
    if not before:
        return 0
    return math.floor(size * most(deployment) / before + 0.5) - size


def proportions(deployment: Object, active: Sequence[Object]) -> list[int]:
    """The new sizes of ReplicaSets while a rollout is under way, in the order given.

    Args:
        active: the ReplicaSets that have pods, the largest first; among equals the newest first where pods are added,
            else the oldest.
    """
    sizes = [replicas(item) for item in active]
    allowed = most(deployment) if replicas(deployment) else 0
    to_add, added = allowed - sum(sizes), 0
    if to_add == 0:
        return sizes
    for at, item in enumerate(active):
        left = to_add - added
        change = min(_share(deployment, item), left) if to_add > 0 else max(_share(deployment, item), left)
        if sizes[at] and left:
            sizes[at] += change
            added += change
    if sizes:
        sizes[0] = max(0, sizes[0] + to_add - added)
    return sizes
