"""RBAC rules: what a rule allows, how a role is read, and the ClusterRoles that every cluster has from the start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import attrs

from wasmlet.controlplane.storage.status import Object

ANY = "*"
_REQUESTS = "certificatesigningrequests"


class Request(Protocol):
    """The parts of a request that a rule looks at (`authorizer.Attributes` has them)."""

    @property
    def verb(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def subresource(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...


@attrs.frozen
class Rule:
    """A rule of a role, with RBAC's meaning of its fields: "*" is everything, `nodes/log` names a subresource.

    `names` limits it to objects of these names, `namespace` to a namespace; empty means all. A rule with `paths` is
    about these paths and no resources; a path may end in "*".
    """

    verbs: tuple[str, ...]
    resources: tuple[str, ...] = ()
    group: str = ""
    names: tuple[str, ...] = ()
    namespace: str = ""
    paths: tuple[str, ...] = ()

    def allows(self, what: Request) -> bool:
        """Whether the rule allows that request."""
        if what.verb not in self.verbs and ANY not in self.verbs:
            return False
        if what.path:
            return any(
                what.path == path or (path.endswith(ANY) and what.path.startswith(path[:-1])) for path in self.paths
            )
        wanted = {what.target, ANY, f"*/{what.subresource}"} if what.subresource else {what.target, ANY}
        return (
            not wanted.isdisjoint(self.resources)
            and self.group in (what.group, ANY)
            and (not self.names or what.name in self.names)
            and self.namespace in (what.namespace, "")
        )


KUBELET_API_ADMIN = (
    Rule(("get", "list", "watch", "proxy"), ("nodes",)),
    Rule(
        (ANY,),
        ("nodes/proxy", "nodes/metrics", "nodes/stats", "nodes/log", "nodes/pods", "nodes/healthz", "nodes/configz"),
    ),
)
"""ClusterRole system:kubelet-api-admin: everything at a node's HTTPS API."""
NODE_BOOTSTRAPPER = (
    Rule(("create", "get", "list", "watch"), (_REQUESTS,), "certificates.k8s.io"),
    Rule(("create",), (f"{_REQUESTS}/nodeclient",), "certificates.k8s.io"),
)
"""ClusterRoles system:node-bootstrapper and system:certificates.k8s.io:certificatesigningrequests:nodeclient."""
SELF_NODE_CLIENT = (Rule(("create",), (f"{_REQUESTS}/selfnodeclient",), "certificates.k8s.io"),)
"""ClusterRole system:certificates.k8s.io:certificatesigningrequests:selfnodeclient."""


_ALL = (Rule((ANY,), (ANY,), ANY), Rule((ANY,), paths=(ANY,)))
ROLES: dict[str, tuple[Rule, ...]] = {
    "cluster-admin": _ALL,
    "system:kubelet-api-admin": KUBELET_API_ADMIN,
    "system:node-bootstrapper": NODE_BOOTSTRAPPER[:1],
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": NODE_BOOTSTRAPPER[1:],
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": SELF_NODE_CLIENT,
    "system:auth-delegator": (
        Rule(("create",), ("tokenreviews",), "authentication.k8s.io"),
        Rule(("create",), ("subjectaccessreviews",), "authorization.k8s.io"),
    ),
}
"""The ClusterRoles that every cluster has, by name; only those that have an effect here."""


def as_policy(rule: Rule) -> Object:
    """Convert a rule to its form in a Role object."""
    if rule.paths:
        return {"verbs": list(rule.verbs), "nonResourceURLs": list(rule.paths)}
    out: Object = {"verbs": list(rule.verbs), "apiGroups": [rule.group], "resources": list(rule.resources)}
    return {**out, "resourceNames": list(rule.names)} if rule.names else out


def of_policies(policies: Iterable[Object], namespace: str) -> Iterator[Rule]:
    """Read the rules of a role; they hold in `namespace`, or everywhere where that is empty.

    In a namespace, rules about URL paths have no effect, because a path belongs to no namespace.
    """
    for policy in policies:
        verbs = tuple(policy.get("verbs") or ())
        if (paths := tuple(policy.get("nonResourceURLs") or ())) and not namespace:
            yield Rule(verbs, paths=paths)
        resources, names = tuple(policy.get("resources") or ()), tuple(policy.get("resourceNames") or ())
        for group in policy.get("apiGroups") or ():
            yield Rule(verbs, resources, group, names, namespace)
