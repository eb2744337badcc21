"""The objects of a pool, as they are to be. Pure.

They have no owner reference: `kubectl delete wnp --cascade=foreground` would end what a pool owns before its nodes are
empty. The operator deletes them when they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from wasmlet.operator import node_pod
from wasmlet.operator.pool import LABEL, Pool

RBAC = "rbac.authorization.k8s.io"
APPS = "apps/v1"


@attrs.frozen
class Object:
    """An object that is to be.

    Attributes:
        path: of the object itself, for a request.
        body: what is applied.
    """

    path: str
    body: dict[str, Any]


def prefixed(pool: str) -> str:
    """The name of a pool's objects that are not its nodes'."""
    return f"wasmlet-pool-{pool}"


def set_path(namespace: str, pool: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{pool}"


def keys_namespace(namespace: str) -> str:
    """The namespace of join tokens and agents' keys, where the nodes' pods are in this one.

    A host may make Secrets there, and by a Secret of the kind that asks for a token it is every service account of the
    namespace. So it is another than the operator's.
    """
    return f"{namespace}-keys"


def paths_of(namespace: str, pool: str) -> Sequence[str]:
    """Where the objects of a pool are, in the order in which they are removed."""
    core, rbac = f"/api/v1/namespaces/{namespace}", f"/apis/{RBAC}/v1"
    return (
        set_path(namespace, pool),
        f"/apis/{APPS}/namespaces/{namespace}/deployments/{pool}",
        f"{core}/services/{pool}",
        f"{rbac}/namespaces/{keys_namespace(namespace)}/rolebindings/{prefixed(pool)}",
        f"{rbac}/clusterroles/{prefixed(pool)}",
        f"{core}/serviceaccounts/{prefixed(pool)}",
        f"{rbac}/clusterrolebindings/{prefixed(pool)}",  # last: it says where the pool's nodes are
    )


@attrs.frozen
class Place:
    """Where the nodes' pods are, and what of.

    Attributes:
        image: of pools that name none.
        server: URL of the API server.
    """

    namespace: str
    image: str
    server: str


def of_nodes(pool: Pool, place: Place, replicas: int, names: Sequence[str]) -> Iterator[Object]:
    """Everything of a pool whose nodes are pods, in the order in which it is needed.

    Args:
        replicas: how many pods there are to be now, which may be more than the pool wants.
        names: of the nodes that act as the Nodes of their names, those included that are still to end.
    """
    account, namespace = prefixed(pool.name), place.namespace
    rules = [*(requests() if pool.certificates else ()), *impersonation(names)]
    yield made(f"/api/v1/namespaces/{namespace}/serviceaccounts", "v1", "ServiceAccount", pool, namespace, name=account)
    yield from bound(pool, namespace, account, rules)
    service = {
        "clusterIP": "None",
        "selector": {LABEL: pool.name},
        "ports": [{"name": "kubelet", "port": 10250, "protocol": "TCP", "targetPort": "kubelet"}],
        "publishNotReadyAddresses": True,
    }
    yield made(f"/api/v1/namespaces/{namespace}/services", "v1", "Service", pool, namespace, spec=service)
    # Guests run in the pod of their node, and end with it: nothing but the operator replaces a pod (OnDelete).
    stateful = {
        "replicas": replicas,
        "serviceName": pool.name,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": {LABEL: pool.name}},
        "template": node_pod.template(pool, place.image, account, place.server),
    }
    path = set_path(namespace, pool.name).rpartition("/")[0]
    yield made(path, "apps/v1", "StatefulSet", pool, namespace, spec=stateful)


def impersonation(nodes: Sequence[str]) -> list[dict[str, Any]]:
    """The right to act as each of these nodes. Without names a rule would be about all users, so there is none then."""
    if not nodes:
        return []
    return [
        _rule("", ["users"], ["impersonate"], [f"system:node:{name}" for name in nodes]),
        _rule("", ["groups"], ["impersonate"], ["system:nodes"]),
    ]


def requests() -> list[dict[str, Any]]:
    """The right to ask for certificates; the operator approves what may be (`wasmlet.operator.identity`)."""
    return [_rule("certificates.k8s.io", ["certificatesigningrequests"], ["create", "get", "list", "watch"])]


def bound(pool: Pool, namespace: str, account: str, rules: list[dict[str, Any]]) -> Iterator[Object]:
    """A ClusterRole with these rules, and its binding to the account."""
    path = f"/apis/{RBAC}/v1/clusterrole"
    yield made(f"{path}s", f"{RBAC}/v1", "ClusterRole", pool, name=account, rules=rules)
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": account}
    kind, version = "ClusterRoleBinding", f"{RBAC}/v1"
    yield made(f"{path}bindings", version, kind, pool, name=account, subjects=[subject], roleRef=role)


def made(
    collection: str, version: str, kind: str, pool: Pool, namespace: str = "", *, name: str = "", **content: Any
) -> Object:
    """An object of a pool.

    Args:
        collection: its path.
        name: that of the pool without it.
    """
    metadata: dict[str, Any] = {"name": name or pool.name, "labels": node_pod.labels(pool.name)}
    if namespace:
        metadata["namespace"] = namespace
    body = {"apiVersion": version, "kind": kind, "metadata": metadata, **content}
    return Object(f"{collection}/{metadata['name']}", body)


def _rule(group: str, resources: list[str], verbs: list[str], names: Sequence[str] = ()) -> dict[str, Any]:
    rule: dict[str, Any] = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return rule | ({"resourceNames": list(names)} if names else {})
