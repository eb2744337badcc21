"""Builds the objects of a pool whose nodes are agents elsewhere; one host process runs the node loops of all. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from wasmlet.operator import node_pod
from wasmlet.operator.objects import APPS, RBAC, Object, Place, bound, impersonation, keys_namespace, made, prefixed
from wasmlet.operator.pool import LABEL, Pool, Remote

KEYS_ROLE = "wasmlet-pool-keys"
"""A Role that the operator's deployment puts into `keys_namespace`; it allows a host to keep join tokens and agents'
keys."""
_TLS = "/etc/wasmlet/tls"
_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}


def of_agents(pool: Pool, remote: Remote, place: Place, names: Sequence[str]) -> Iterator[Object]:
    """All objects of a pool whose nodes are agents, in the order in which they are needed.

    Args:
        names: the names of the nodes, including nodes that have not ended yet.
    """
    namespace, account = place.namespace, prefixed(pool.name)
    core = f"/api/v1/namespaces/{namespace}"
    yield made(f"{core}/serviceaccounts", "v1", "ServiceAccount", pool, namespace, name=account)
    yield from bound(pool, namespace, account, impersonation(names))
    binding = {
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": KEYS_ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    keys = keys_namespace(namespace)
    path = f"/apis/{RBAC}/v1/namespaces/{keys}/rolebindings"
    yield made(path, f"{RBAC}/v1", "RoleBinding", pool, keys, name=account, **binding)
    service = {
        "type": remote.service["type"],
        "selector": {LABEL: pool.name},
        "ports": [{"name": "agents", "port": remote.service["port"], "protocol": "TCP", "targetPort": "agents"}],
    }
    yield made(f"{core}/services", "v1", "Service", pool, namespace, spec=service)
    deployment = {
        "replicas": 1,
        # An agent has one host, and a second host would take over its nodes. Guests keep running while the host
        # changes.
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": {LABEL: pool.name}},
        "template": _template(pool, remote, place, account),
    }
    path = f"/apis/{APPS}/namespaces/{namespace}/deployments"
    yield made(path, APPS, "Deployment", pool, namespace, spec=deployment)


def _template(pool: Pool, remote: Remote, place: Place, account: str) -> dict[str, Any]:
    settings = {
        "listen": "$(POD_IP):8443",
        "tls-cert-file": f"{_TLS}/tls.crt",
        "tls-key-file": f"{_TLS}/tls.key",
        "tls-ca-file": f"{_TLS}/ca.crt",
        "namespace": keys_namespace(place.namespace),
        "pool": pool.name,
        "node-ip": "$(POD_IP)",
        "state-dir": f"{node_pod.STATE}/state",
        "max-pods": str(pool.max_pods),
        "register-with-taints": f"{node_pod.UNPREPARED}:NoSchedule",
    }
    serving = [] if {"serving-csr", "serving_csr"} & set(pool.config) else ["--no-serving-csr"]
    container = node_pod.container(
        pool, place.image, [*serving, *(f"--{key}={value}" for key, value in settings.items())]
    )
    container |= {
        "name": "host",
        "command": pool.node_pod.get("command") or ["wasmlet", "host"],
        "ports": [{"name": "agents", "containerPort": 8443, "protocol": "TCP"}],
        "readinessProbe": {"tcpSocket": {"port": "agents"}},
        "resources": pool.node_pod.get("resources") or _RESOURCES,
    }
    container["volumeMounts"].append({"name": "tls", "mountPath": _TLS, "readOnly": True})
    spec = node_pod.spec_of(pool, container, account)
    spec["volumes"].append({"name": "tls", "secret": {"secretName": remote.tls_secret}})
    return {"metadata": {"labels": node_pod.labels(pool.name)}, "spec": spec}
