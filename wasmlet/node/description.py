"""Makes the content of the Node object (labels, taints, capacity, addresses) from settings and the provider's status.

Does no I/O; `wasmlet.node.registration` writes it to the API.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import attrs

from wasmlet.model.quantity import Quantity
from wasmlet.node.config import NodeConfig
from wasmlet.node.node_status import conditions, machine
from wasmlet.provider import NodeStatus, Taint

MOST_IMAGES, MOST_NAMES = 50, 5
"""How many images `status.images` has at most, and how many names of each: a kubelet's limits."""
KUBELET_VERSION = "v1.34.0"
"""What the node says its kubelet is: clusters compare it with the API server's (version skew) and refuse odd ones.

Not the newest that is supported: a kubelet may be three minor versions older than its API server, and not a newer one.
"""
FEATURES = ("ExtendWebSocketsToKubelet",)
"""What the node declares that it can do (KEP-5328), sorted: its API takes websockets of kubectl as they are (KEP-4006).

API servers before 1.36 drop the field or make nothing of it, and go on to translate to SPDY.
"""

HANDLER_LABEL = "handler.wasmlet.dev/"
"""With a handler's name: the node's label that says it is offered, for the selector of a RuntimeClass."""
NOT_BALANCED = "node.kubernetes.io/exclude-from-external-load-balancers"
"""The label that keeps a node from load balancers. Without it a cloud controller would look for the node's machine in
the cloud, and fail because there is none."""


@attrs.frozen(kw_only=True)
class NodeDescription:
    """Makes the parts of the Node object. Its attributes do not change while the node runs.

    Attributes:
        provider: its name.
        ip: the node's address.
        has_hostname: whether the node's name resolves to that address. Only then the Node has a Hostname address: an
            API server may dial that one first, and `kubectl logs` fails if it does not resolve.
    """

    config: NodeConfig
    provider: str
    ip: str
    has_hostname: bool = False

    def spec(self, status: NodeStatus) -> dict[str, Any]:
        """The Node's `spec` as it registers. A node may not change its taints and its providerID later."""
        own = Taint("wasmlet.dev/provider", self.provider)
        taints = [
            {"key": t.key, "effect": t.effect} | ({"value": t.value} if t.value else {})
            for t in (own, *status.taints, *self.config.taints)
        ]
        identity = self.config.provider_id
        provider_id = f"wasmlet://{self.config.node_name}" if identity is None else identity
        return {"taints": taints} | ({"providerID": provider_id} if provider_id else {})

    def labels(self, status: NodeStatus) -> dict[str, str]:
        """The Node's labels."""
        return {
            "kubernetes.io/os": status.operating_system,
            "kubernetes.io/arch": status.architecture,
            "kubernetes.io/hostname": self.config.node_name,
            "wasmlet.dev/provider": self.provider,
            NOT_BALANCED: "true",
            **{f"{HANDLER_LABEL}{name}": "true" for name in status.runtime_handlers if name},
            **status.labels,
            **self.config.labels,
        }

    def status(self, status: NodeStatus, trouble: str, port: int | None) -> dict[str, Any]:
        """The Node's `status`, its conditions without times.

        Args:
            trouble: what keeps the node from being ready, or "".
            port: of the node's API; None before it is served.
        """
        capacity = machine() | {"pods": str(self.config.max_pods)} | dict(status.capacity)
        body: dict[str, Any] = {
            "capacity": capacity,
            "allocatable": self._allocatable(capacity, status),
            "conditions": [attrs.asdict(c) for c in conditions(status.conditions, self.provider, trouble)],
            "addresses": self._addresses(status),
            "nodeInfo": self._info(status),
            "images": [
                {"names": list(one.names[:MOST_NAMES]), "sizeBytes": one.size} for one in status.images[:MOST_IMAGES]
            ],
        }
        if port is not None:
            body["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
            body["declaredFeatures"] = list(FEATURES)
        features = {"features": dict(status.handler_features)} if status.handler_features else {}
        if handlers := [{"name": name, **features} for name in status.runtime_handlers]:
            body["runtimeHandlers"] = handlers
        return body

    def _allocatable(self, capacity: Mapping[str, str], status: NodeStatus) -> dict[str, str]:
        """What pods may have: less what is set aside for the node itself, and never less than nothing."""
        allocatable = dict(capacity) | dict(status.allocatable or {})
        for name, amount in self.config.reserved.items():
            if name in allocatable:
                allocatable[name] = str(max(Quantity.parse(allocatable[name]) - amount, Quantity.parse(0)))
        return allocatable

    def _addresses(self, status: NodeStatus) -> list[dict[str, str]]:
        hostname = [{"type": "Hostname", "address": self.config.node_name}] if self.has_hostname else []
        others = [{"type": a.type, "address": a.address} for a in status.addresses]
        return [{"type": "InternalIP", "address": self.ip}, *hostname, *others]

    def _info(self, status: NodeStatus) -> dict[str, str]:
        return {
            "operatingSystem": status.operating_system,
            "architecture": status.architecture,
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "containerRuntimeVersion": f"{self.provider}://0",
            "kernelVersion": platform.release(),
            "osImage": platform.platform(terse=True),
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            **status.system_info,
        }
