"""The objects that every cluster has from the start: namespaces, priorities, roles, and the Service of the API."""

from __future__ import annotations

from wasmlet.controlplane.access.rights import GROUP as RBAC
from wasmlet.controlplane.access.rules import ROLES, as_policy
from wasmlet.controlplane.access.users import MASTERS
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import core

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_CRITICAL = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def populate(registry: Registry) -> None:
    """Create them, in an empty store."""
    for name in NAMESPACES:
        registry.create(Call(core("namespaces")), {"metadata": {"name": name}})
    for name, value in _CRITICAL.items():
        registry.create(Call(core("priorityclasses")), {"metadata": {"name": name}, "value": value})
    for name, rules in ROLES.items():
        role = {"metadata": {"name": name}, "rules": [as_policy(rule) for rule in rules]}
        registry.create(Call(core("clusterroles")), role)
    registry.create(
        Call(core("clusterrolebindings")),
        {
            "metadata": {"name": "cluster-admin"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": MASTERS}],
        },
    )
    registry.create(
        Call(core("services"), "default"),
        {
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "clusterIP": "10.96.0.1",
                "clusterIPs": ["10.96.0.1"],
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
            },
        },
    )
