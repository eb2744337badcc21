"""The observed state of a pool's nodes: of each object only the fields that decisions need. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from wasmlet.model.pod import Raw
from wasmlet.model.quantity import Quantity
from wasmlet.model.times import parse
from wasmlet.operator.node_pod import BOOTSTRAP

DRAINING = "wasmlet.dev/draining"
"""Annotation of a Node that the operator drains: the time when the drain began."""
CORDONED_BEFORE = "wasmlet.dev/cordoned-before-draining"
"""Annotation of a Node that was already cordoned when its drain began; then the operator does not uncordon it."""
DRESS = "wasmlet.dev/pool-template"
"""Annotation of a Node: which labels, annotations and taints come from its pool's template (JSON)."""
MEMBER = "wasmlet.dev/pool-uid"
"""Annotation of a Node that is or was an agent of a pool: the pool's UID, by which the operator recognizes it."""
_REVISION = "controller-revision-hash"


@attrs.frozen
class NodeSeen:
    """A Node.

    Attributes:
        since: when its Ready condition changed last; None where that is not said.
        draining: when its drain began; None where it is not drained.
        program: the version of the node's program (`kubeletVersion`).
        pods: how many pods it can take.
    """

    name: str
    uid: str
    version: str
    ready: bool
    since: datetime | None
    cordoned: bool
    draining: datetime | None
    program: str
    pods: Quantity
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    taints: Sequence[Raw]

    @classmethod
    def of(cls, raw: Raw) -> NodeSeen:
        metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        annotations = metadata.get("annotations") or {}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            ready=_condition(status, "Ready") == "True",
            since=_time(_condition(status, "Ready", "lastTransitionTime") or None),
            cordoned=bool(spec.get("unschedulable")),
            draining=_time(annotations.get(DRAINING)),
            program=(status.get("nodeInfo") or {}).get("kubeletVersion", ""),
            pods=_pods(status),
            labels=metadata.get("labels") or {},
            annotations=annotations,
            taints=spec.get("taints") or (),
        )


@attrs.frozen
class PodSeen:
    """The pod of a node.

    Attributes:
        running: whether its container runs, as its kubelet reported last; guests may run in it even if it is not ready.
        certificates: whether its node requests a certificate; otherwise the node impersonates its Node's user.
        trouble: why it does not run, as the scheduler or its kubelet said; "" where nothing is said.
    """

    name: str
    uid: str
    revision: str
    ready: bool
    running: bool
    ending: bool
    trouble: str
    certificates: bool = False

    @classmethod
    def of(cls, raw: Raw) -> PodSeen:
        metadata, status = raw["metadata"], raw.get("status") or {}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            revision=(metadata.get("labels") or {}).get(_REVISION, ""),
            ready=_condition(status, "Ready") == "True",
            running=any("running" in (one.get("state") or {}) for one in status.get("containerStatuses") or ()),
            ending="deletionTimestamp" in metadata,
            trouble=_trouble(status),
            certificates=BOOTSTRAP in (metadata.get("annotations") or {}),
        )


@attrs.frozen
class SetSeen:
    """The StatefulSet of a pool.

    Attributes:
        revision: the revision that its pods are to have; "" until its controller has seen the last change.
        empty: whether no pod is wanted, and its controller has confirmed that there is none.
    """

    uid: str
    replicas: int
    revision: str
    empty: bool

    @classmethod
    def of(cls, raw: Raw) -> SetSeen:
        metadata, status = raw["metadata"], raw.get("status") or {}
        current = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
        replicas = raw["spec"].get("replicas", 1)
        return cls(
            uid=metadata["uid"],
            replicas=replicas,
            revision=str(status.get("updateRevision") or "") if current else "",
            empty=current and not replicas and not status.get("replicas"),
        )


@attrs.frozen
class Member:
    """A node of the pool, with its pod and its Node, as far as they exist.

    Attributes:
        remote: whether it is an agent, which has no pod.
    """

    ordinal: int
    name: str
    pod: PodSeen | None = None
    node: NodeSeen | None = None
    remote: bool = False

    @property
    def there(self) -> bool:
        """Whether its pod exists, or, of an agent, its Node."""
        return self.node is not None if self.remote else self.pod is not None

    @property
    def available(self) -> bool:
        """Whether it is ready and takes new pods."""
        runs = self.remote or (self.pod is not None and self.pod.ready and not self.pod.ending)
        return runs and self.node is not None and self.node.ready and self.node.draining is None


@attrs.frozen
class Seen:
    """The observed state of one pool."""

    set: SetSeen | None
    members: Sequence[Member]
    """In the order of ordinals; nodes that have neither a pod nor a Node are left out, except for agents."""


def _condition(status: Mapping[str, Any], kind: str, key: str = "status") -> str:
    return next((str(c.get(key) or "") for c in status.get("conditions") or () if c.get("type") == kind), "")


def _pods(status: Mapping[str, Any]) -> Quantity:
    try:
        return Quantity.parse((status.get("allocatable") or {}).get("pods", "0"))
    except ValueError:
        return Quantity.parse("0")  # a node may write anything there


def _trouble(status: Mapping[str, Any]) -> str:
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        for what in (state.get("waiting"), state.get("terminated")):
            if what and what.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                return ": ".join(filter(None, (what["reason"], (what.get("message") or "")[:200])))
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {(condition.get('message') or '')[:200]}"
    return ""


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else parse(text)
    except ValueError:
        return datetime.fromisoformat("1970-01-01T00:00:00+00:00")  # edited by hand and unreadable: counts as long ago
