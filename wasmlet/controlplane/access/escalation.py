"""Prevents privilege escalation by RBAC: nobody can grant rights that they do not have.

Who writes a role must hold all of its rules. Who binds a role must hold its rules, or have the verb `bind` on it.

The rules are those of kubernetes/pkg/registry/rbac. The verb `escalate` on roles allows to write any rule.
"""

from __future__ import annotations

import attrs

from wasmlet.controlplane.access.rights import GROUP, Rights
from wasmlet.controlplane.access.rules import Rule, as_policy, of_policies
from wasmlet.controlplane.access.users import User
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import Object


@attrs.frozen
class _Atom:
    """One single right, in the form of a request that would need it (`rules.Request`)."""

    verb: str
    group: str = ""
    target: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


def _atoms(rule: Rule) -> list[_Atom]:
    if rule.paths:
        return [_Atom(verb, path=path) for verb in rule.verbs for path in rule.paths]
    return [
        _Atom(verb, rule.group, resource, resource.partition("/")[2], rule.namespace, name)
        for verb in rule.verbs
        for resource in rule.resources
        for name in rule.names or ("",)
    ]


def check(rights: Rights, user: User, kind: Kind, new: Object, old: Object | None) -> None:
    """Check a write of a role or of a binding.

    Raises:
        ApiError: 403, it gives rights that the user does not have.
    """
    if kind.group != GROUP or user.master or (old is not None and _said(new) == _said(old)):
        return
    metadata = new["metadata"]
    name, namespace = str(metadata.get("name", "")), metadata.get("namespace", "")
    if kind.plural in ("roles", "clusterroles"):
        if rights.allow(user, _Atom("escalate", GROUP, kind.plural, namespace=namespace, name=name)):
            return
        given = list(of_policies(new.get("rules") or (), namespace))
    else:
        reference = new["roleRef"]
        plural = f"{str(reference.get('kind')).lower()}s"
        if rights.allow(user, _Atom("bind", GROUP, plural, namespace=namespace, name=str(reference.get("name")))):
            return
        given = rights.role(reference, namespace)
    missing = [rule for rule in given if not all(rights.allow(user, atom) for atom in _atoms(rule))]
    if missing:
        groups = " ".join(f'"{group}"' for group in sorted(user.groups))
        lines = "\n".join(sorted(_shown(rule) for rule in missing))
        who = f'user "{user.name}" (groups=[{groups}])'
        why = f"{who} is attempting to grant RBAC permissions not currently held:\n{lines}"
        raise status.forbidden(kind, name, why)


def _said(obj: Object) -> object:
    return obj.get("rules"), obj.get("roleRef"), obj.get("subjects"), obj.get("aggregationRule")


def _shown(rule: Rule) -> str:
    names = {"apiGroups": "APIGroups", "resources": "Resources", "resourceNames": "ResourceNames", "verbs": "Verbs"}
    policy = as_policy(rule)
    parts = []
    for key, name in {**names, "nonResourceURLs": "NonResourceURLs"}.items():
        if key in policy:
            parts.append(f"{name}:[{', '.join(f'{chr(34)}{value}{chr(34)}' for value in policy[key])}]")
    return "{" + ", ".join(parts) + "}"
