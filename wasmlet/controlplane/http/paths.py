"""Parses the method and path of a request: verb, kind, namespace, name and subresource."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

import attrs

from wasmlet.controlplane.access.authorizer import Attributes
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.kinds import Catalog, Kind
from wasmlet.controlplane.storage.selectors import parse_fields

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
PROXY = "proxy"
"""The subresource of nodes that passes on what follows it to the node's own API."""
TRUE = ("1", "true", "True", "t", "T", "TRUE")


@attrs.frozen
class Target:
    """What a request is about.

    Attributes:
        rest: what follows the subresource `proxy`, which has paths of its own.
    """

    verb: str
    kind: Kind
    namespace: str = ""
    name: str = ""
    sub: str = ""
    rest: str = ""

    def attributes(self, params: Mapping[str, str]) -> Attributes:
        """The request in the form that an authorizer needs; a name in the field selector counts as a name."""
        name, node = self.name, None
        fields = params.get("fieldSelector")
        if fields and not name:
            for requirement in parse_fields(self.kind, fields):
                if requirement.equal and requirement.field == "metadata.name":
                    name = requirement.value
                elif requirement.equal and requirement.field == "spec.nodeName":
                    node = requirement.value
        return Attributes(self.verb, self.kind.group, self.kind.plural, self.sub, self.namespace, name, node_name=node)


def _verb(method: str, name: str, params: Mapping[str, str]) -> str:
    if method in ("GET", "HEAD"):
        if params.get("watch") in TRUE:
            return "watch"
        return "get" if name else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    try:
        return _VERBS[method]
    except KeyError:
        raise status.method_not_allowed() from None


def parse(catalog: Catalog, method: str, path: str, params: Mapping[str, str]) -> Target | None:
    """What a path below /api or /apis is about; None if it is about no resource of the catalog.

    Raises:
        ApiError: 404, there is no such resource; 405, it knows no such verb.
    """
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    plural, name, sub = rest[0], rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""
    kind = catalog.find(group, version, plural)
    beyond = ""
    if plural == "nodes" and sub == PROXY:
        beyond, rest = "/".join(rest[3:]), rest[:3]
    if kind is None or len(rest) > 3 or not all(rest) or (namespace and not kind.namespaced):
        raise status.no_such_path()
    verb = _verb(method, name, params)
    if verb == "watch" and name:  # a watch of one object in its older form
        raise status.method_not_allowed()
    allowed: tuple[str, ...] = kind.verbs
    if sub:
        allowed = next((known.verbs for known in kind.subresources if known.name == sub), ())
        if not allowed:
            raise status.no_such_path()
    if kind.namespaced and not namespace and (name or verb not in ("list", "watch")):
        raise status.no_such_path()
    if verb not in allowed or (verb == "create" and name and not sub):
        raise status.method_not_allowed()
    return Target(verb, kind, namespace, name, sub, beyond)
