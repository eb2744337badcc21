"""Reads a `WasmNodePool` object into a `Pool`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from wasmlet.errors import WasmletError
from wasmlet.model.pod import Raw

GROUP = "wasmlet.dev"
VERSION = "v1alpha1"
PLURAL = "wasmnodepools"
KIND = "WasmNodePool"
POOLS = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
FINALIZER = f"{GROUP}/nodes"
"""The finalizer that keeps a deleted pool until its nodes have ended."""
LABEL = f"{GROUP}/pool"
"""The label of all objects of a pool; its value is the pool's name."""
MOST_SECONDS = 1e9
"""Durations are cut to this; longer ones would lead to dates that cannot be represented."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
RESERVED = {"cpu": "100m", "memory": "256Mi"}


class Unusable(WasmletError):
    """The pool's spec cannot be carried out. `reason` becomes the reason of the condition Degraded."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@attrs.frozen
class Autoscaling:
    """The limits within which the operator chooses `replicas`, and how many seconds it waits before a change.

    Attributes:
        pending_seconds: how long pods must have waited for a node before one is added.
        empty_seconds: how long the last node must have been empty before it is removed.
    """

    least: int
    most: int
    pending_seconds: float
    empty_seconds: float


@attrs.frozen
class Remote:
    """The agents of a pool whose nodes are elsewhere, and how they reach their host.

    Attributes:
        agents: the names of the agents, which are also the names of their Nodes.
        tls_secret: name of the Secret with the host's certificate.
    """

    agents: Sequence[str]
    tls_secret: str
    service: Mapping[str, Any]


@attrs.frozen
class Pool:
    """What a `WasmNodePool` says, with the defaults of its schema.

    Attributes:
        replicas: None where nobody has said yet, and where the nodes are agents.
        drain_timeout: how long the drain of a node may take, in seconds.
        certificates: whether each node has a client certificate of its own; otherwise it impersonates its Node's user.
    """

    name: str
    uid: str
    generation: int
    provider: str
    replicas: int | None
    engines: Sequence[str]
    config: Mapping[str, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    taints: Sequence[Raw]
    node_pod: Raw
    max_pods: int
    reserved: Mapping[str, str]
    drain_timeout: float
    max_unavailable: int
    autoscaling: Autoscaling | None
    remote: Remote | None
    certificates: bool

    @classmethod
    def of(cls, raw: Raw) -> Pool:
        """Read a pool from the API server, which has already checked it against its schema and rules."""
        metadata, spec = raw["metadata"], raw["spec"]
        template = spec.get("template") or {}
        dress, disruption = template.get("metadata") or {}, spec.get("disruption") or {}
        scaling = spec.get("autoscaling")
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            provider=spec.get("provider", "wasmtime"),
            replicas=spec.get("replicas"),
            engines=spec.get("engines") or (),
            config=spec.get("config") or {},
            labels=dress.get("labels") or {},
            annotations=dress.get("annotations") or {},
            taints=template.get("taints") or (),
            node_pod=spec.get("nodePod") or {},
            max_pods=(spec.get("capacity") or {}).get("pods", 250),
            reserved={key: str(value) for key, value in (spec.get("reserved") or RESERVED).items()},
            drain_timeout=seconds(disruption.get("drainTimeout", "10m")),
            max_unavailable=disruption.get("maxUnavailable", 1),
            autoscaling=None if scaling is None else _autoscaling(scaling),
            certificates=spec.get("identity") == "Certificate",
            remote=None if (remote := spec.get("remote")) is None else _remote(remote),
        )

    @property
    def wanted(self) -> int:
        """How many nodes there are to be."""
        return len(self.remote.agents) if self.remote is not None else self.replicas or 0

    def node(self, ordinal: int) -> str:
        """The name of the node, and of its pod."""
        return f"{self.name}-{ordinal}"


def ordinal_of(name: str, pool: str) -> int | None:
    """The ordinal in the name of a node or pod of this pool; None where the name is not of that form."""
    stem, _, last = name.rpartition("-")
    return int(last) if stem == pool and last.isdecimal() and last == str(int(last)) else None


def seconds(text: str) -> float:
    """Convert a duration in Go's form, such as 1h30m, to seconds; at most `MOST_SECONDS`.

    Raises:
        Unusable: it is none.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise Unusable("InvalidSpec", f"expected a duration as 90s, 10m or 1h30m, found {text!r}")
    return min(MOST_SECONDS, sum(float(number) * _UNITS[unit] for number, unit in parts))


def _remote(raw: Raw) -> Remote:
    agents = [agent["name"] for agent in raw.get("agents") or ()]
    return Remote(agents, raw["tlsSecret"], {"type": "ClusterIP", "port": 8443, **(raw.get("service") or {})})


def _autoscaling(raw: Raw) -> Autoscaling:
    return Autoscaling(
        least=raw["min"],
        most=raw["max"],
        pending_seconds=raw.get("pendingSeconds", 30),
        empty_seconds=raw.get("emptySeconds", 600),
    )
