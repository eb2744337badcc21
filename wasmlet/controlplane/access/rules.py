"""A table of who may do what, in place of RBAC: rules as roles have them, given to a user or to a group.

It holds what a cluster binds from the start (bootstrappers may ask for a node's certificate, a node for its own) and
what a test adds with `ControlPlane.grant`. `authorizer` consults it after the rules for masters.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from wasmlet.controlplane.access.users import NODES, User

ANY = "*"
_BOOTSTRAPPERS = "system:bootstrappers"
_REQUESTS = "certificatesigningrequests"


class Request(Protocol):
    """What of a request a rule looks at (`authorizer.Attributes`)."""

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


class Rules:
    """The table: subjects, which are names of users and of groups, and their rules."""

    def __init__(self) -> None:
        self._rules: dict[str, list[Rule]] = {
            _BOOTSTRAPPERS: list(NODE_BOOTSTRAPPER),
            NODES: list(SELF_NODE_CLIENT),
        }

    def grant(self, subject: str, *rules: Rule) -> None:
        """Let a user or a group do what these rules say, too."""
        self._rules.setdefault(subject, []).extend(rules)

    def revoke(self, subject: str) -> None:
        """Remove all rules of a user or a group."""
        self._rules.pop(subject, None)

    def allow(self, user: User, what: Request) -> bool:
        """Whether a rule of the user or of a group of theirs lets the request pass."""
        subjects = (user.name, *user.groups)
        return any(rule.allows(what) for subject in subjects for rule in self._rules.get(subject, ()))
