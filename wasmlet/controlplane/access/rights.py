"""The rights of users and groups: those of the RBAC objects in the store, and a table of further grants.

The table holds what a cluster grants from the start (bootstrappers may request a node's certificate, and a node its
own) and what a test adds with `ControlPlane.grant`. `authorizer` asks both after it has let group system:masters pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from wasmlet.controlplane.access.rules import NODE_BOOTSTRAPPER, SELF_NODE_CLIENT, Request, Rule, of_policies
from wasmlet.controlplane.access.users import NODES, User
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Event, Record, Store

GROUP = "rbac.authorization.k8s.io"
_BOOTSTRAPPERS = "system:bootstrappers"


class Rights:
    """The rules of each subject (the name of a user or of a group). It follows the store from its construction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._granted: dict[str, list[Rule]] = {
            _BOOTSTRAPPERS: list(NODE_BOOTSTRAPPER),
            NODES: list(SELF_NODE_CLIENT),
        }
        self._bound: dict[str, list[Rule]] | None = None
        """The rules of each subject by the bindings in the store; None where they have to be read again."""
        store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        if kind.group == GROUP:
            self._bound = None

    def grant(self, subject: str, *rules: Rule) -> None:
        """Add these rules to those of a user or of a group."""
        self._granted.setdefault(subject, []).extend(rules)

    def revoke(self, subject: str) -> None:
        """Remove all rules of a user or a group but those of bindings."""
        self._granted.pop(subject, None)

    def allow(self, user: User, what: Request) -> bool:
        """Whether a rule of the user, or of one of the user's groups, allows the request."""
        if self._bound is None:
            self._bound = self._read()
        return any(
            rule.allows(what)
            for subject in (user.name, *user.groups)
            for table in (self._granted, self._bound)
            for rule in table.get(subject, ())
        )

    def role(self, reference: Object, namespace: str) -> list[Rule]:
        """The rules of the role that a binding's `roleRef` names; none where there is no such role."""
        found = (
            self._store["clusterroles"].get("", str(reference.get("name")))
            if reference.get("kind") == "ClusterRole"
            else self._store["roles"].get(namespace, str(reference.get("name")))
        )
        return [] if found is None else list(of_policies(found.raw.get("rules") or (), namespace))

    def _read(self) -> dict[str, list[Rule]]:
        out: dict[str, list[Rule]] = {}
        for plural in ("clusterrolebindings", "rolebindings"):
            for record in self._store[plural]:
                rules = self.role(record.raw["roleRef"], record.namespace)
                for subject in _subjects(record):
                    out.setdefault(subject, []).extend(rules)
        return out


def _subjects(binding: Record) -> Iterator[str]:
    for subject in binding.raw.get("subjects") or ():
        name = str(subject.get("name"))
        if subject.get("kind") == "ServiceAccount":
            name = f"system:serviceaccount:{subject.get('namespace') or binding.namespace}:{name}"
        yield name
