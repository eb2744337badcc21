"""What the API server has of a pool's nodes: of each object only what decisions need. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from wasmlet.model.pod import Raw
from wasmlet.model.times import parse
from wasmlet.operator.node_pod import BOOTSTRAP

DRAINING = "wasmlet.dev/draining"
"""Annotation of a Node that the operator empties: since when."""
CORDONED_BEFORE = "wasmlet.dev/cordoned-before-draining"
"""Annotation of such a Node that somebody else had cordoned: the operator leaves it so."""
DRESS = "wasmlet.dev/pool-template"
"""Annotation of a Node: which labels, annotations and taints it has from its pool (JSON)."""
MEMBER = "wasmlet.dev/pool-uid"
"""Annotation of a Node that was an agent of a pool: the UID of that pool, by which the operator knows its own."""
_REVISION = "controller-revision-hash"


@attrs.frozen
class NodeSeen:
    """A Node.

    Attributes:
        since: when it became ready or not; None where it does not say.
    """

    name: str
    uid: str
    version: str
    ready: bool
    since: datetime | None
    cordoned: bool
    draining: datetime | None
    program: str
    pods: str
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
            pods=str((status.get("allocatable") or {}).get("pods", "0")),
            labels=metadata.get("labels") or {},
            annotations=annotations,
            taints=spec.get("taints") or (),
        )


@attrs.frozen
class PodSeen:
    """The pod of a node.

    Attributes:
        running: whether its container runs, as its kubelet said last; guests may run in it also while it is not ready.
        certificates: whether its node asks for a certificate, and so does not act as the Node of its name.
        trouble: why it does not run, in the words of the scheduler or of its kubelet; "" where nothing is said.
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
        revision: what its pods are to be; "" while its controller has yet to see what the StatefulSet says.
        empty: no pod is wanted, and its controller has seen that and has none.
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
    """A node of the pool: its pod and its Node, as far as they are there.

    Attributes:
        remote: it is an agent, which has no pod.
    """

    ordinal: int
    name: str
    pod: PodSeen | None = None
    node: NodeSeen | None = None
    remote: bool = False

    @property
    def there(self) -> bool:
        """Whether there is what runs pods."""
        return self.node is not None if self.remote else self.pod is not None

    @property
    def available(self) -> bool:
        """Whether it runs pods and takes more."""
        runs = self.remote or (self.pod is not None and self.pod.ready and not self.pod.ending)
        return runs and self.node is not None and self.node.ready and self.node.draining is None


@attrs.frozen
class Seen:
    """All of a pool."""

    set: SetSeen | None
    members: Sequence[Member]
    """By ordinal; those that have neither a pod nor a Node are left out."""


def _condition(status: Mapping[str, Any], kind: str, key: str = "status") -> str:
    return next((str(c.get(key) or "") for c in status.get("conditions") or () if c.get("type") == kind), "")


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
        return datetime.fromisoformat("1970-01-01T00:00:00+00:00")  # somebody wrote it by hand: since for ever
