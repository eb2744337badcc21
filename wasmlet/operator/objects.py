"""Builds the Kubernetes objects of a pool whose nodes are pods. Pure.

The objects have no owner reference. With one, `kubectl delete wnp --cascade=foreground` would delete them before the
nodes have been drained. The operator deletes them afterwards.
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
    """An object to apply.

    Attributes:
        path: the URL path of the object.
        body: the fields to apply.
    """

    path: str
    body: dict[str, Any]


def prefixed(pool: str) -> str:
    """The name of those objects of a pool that do not have the pool's own name: account, roles and bindings."""
    return f"wasmlet-pool-{pool}"


def set_path(namespace: str, pool: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{pool}"


def keys_namespace(namespace: str) -> str:
    """The namespace of the Secrets with join tokens and agents' keys, for the namespace of the nodes' pods.

    A host may create Secrets there. By a Secret of type service-account-token it can get the token of any service
    account of that namespace. So it must not be the namespace of the operator.
    """
    return f"{namespace}-keys"


def paths_of(namespace: str, pool: str) -> Sequence[str]:
    """The paths of all objects that a pool can have, in the order in which they are deleted."""
    core, rbac = f"/api/v1/namespaces/{namespace}", f"/apis/{RBAC}/v1"
    return (
        set_path(namespace, pool),
        f"/apis/{APPS}/namespaces/{namespace}/deployments/{pool}",
        f"{core}/services/{pool}",
        f"{rbac}/namespaces/{keys_namespace(namespace)}/rolebindings/{prefixed(pool)}",
        f"{rbac}/clusterroles/{prefixed(pool)}",
        f"{core}/serviceaccounts/{prefixed(pool)}",
        f"{rbac}/clusterrolebindings/{prefixed(pool)}",  # last, as `home_of` reads the pool's namespace from it
    )


@attrs.frozen
class Place:
    """Where a pool's pods run, and with which image.

    Attributes:
        image: of pools that name none.
        server: the URL of the API server.
    """

    namespace: str
    image: str
    server: str


def of_nodes(pool: Pool, place: Place, replicas: int, names: Sequence[str]) -> Iterator[Object]:
    """All objects of a pool whose nodes are pods, in the order in which they are needed.

    Args:
        replicas: how many pods there are to be now; while nodes are drained, more than the pool wants.
        names: the nodes that may act as the Nodes of their names, including nodes that have not ended yet.
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
    # Guests run in the pod of their node and end with it. So nothing but the operator may replace a pod (OnDelete).
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
    """The rules that allow to act as each of these nodes; none without nodes.

    A rule without names would allow to act as any user.
    """
    if not nodes:
        return []
    return [
        _rule("", ["users"], ["impersonate"], [f"system:node:{name}" for name in nodes]),
        _rule("", ["groups"], ["impersonate"], ["system:nodes"]),
    ]


def requests() -> list[dict[str, Any]]:
    """The rules that allow to request certificates; `wasmlet.operator.identity` decides which requests to approve."""
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
    """Build one object of a pool.

    Args:
        collection: the URL path of its collection.
        name: the object's name; by default the pool's.
    """
    metadata: dict[str, Any] = {"name": name or pool.name, "labels": node_pod.labels(pool.name)}
    if namespace:
        metadata["namespace"] = namespace
    body = {"apiVersion": version, "kind": kind, "metadata": metadata, **content}
    return Object(f"{collection}/{metadata['name']}", body)


def _rule(group: str, resources: list[str], verbs: list[str], names: Sequence[str] = ()) -> dict[str, Any]:
    rule: dict[str, Any] = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return rule | ({"resourceNames": list(names)} if names else {})
