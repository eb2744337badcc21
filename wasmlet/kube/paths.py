"""The API paths of the objects that a node touches."""

from __future__ import annotations

from wasmlet.model.pod import PodKey

PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def pod(key: PodKey) -> str:
    return f"/api/v1/namespaces/{key.namespace}/pods/{key.name}"


def events(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/events"
