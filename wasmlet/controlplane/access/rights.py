"""Who was given what: the objects of RBAC, and a table beside them.

The table holds what a cluster binds from the start (bootstrappers may ask for a node's certificate, a node for its own)
and what a test adds with `ControlPlane.grant`. `authorizer` consults both after the rules for masters.
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
    """Subjects, which are names of users and of groups, and their rules; follows the store from its construction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._granted: dict[str, list[Rule]] = {
            _BOOTSTRAPPERS: list(NODE_BOOTSTRAPPER),
            NODES: list(SELF_NODE_CLIENT),
        }
        self._bound: dict[str, list[Rule]] | None = None
        """What the bindings say; None where it has to be read again."""
        store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        if kind.group == GROUP:
            self._bound = None

    def grant(self, subject: str, *rules: Rule) -> None:
        """Let a user or a group do what these rules say, too."""
        self._granted.setdefault(subject, []).extend(rules)

    def revoke(self, subject: str) -> None:
        """Remove all rules of a user or a group but those of bindings."""
        self._granted.pop(subject, None)

    def allow(self, user: User, what: Request) -> bool:
        """Whether a rule of the user or of a group of theirs lets the request pass."""
        if self._bound is None:
            self._bound = self._read()
        return any(
            rule.allows(what)
            for subject in (user.name, *user.groups)
            for table in (self._granted, self._bound)
            for rule in table.get(subject, ())
        )

    def role(self, reference: Object, namespace: str) -> list[Rule]:
        """The rules that a binding in a namespace, or in none, gives by its `roleRef`; none where there is no role."""
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
