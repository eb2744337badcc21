"""Authorization: decides whether a user may make a request.

Group system:masters may do everything, a node what the Node authorizer allows, and every user what `rights` grants.

The rules for nodes are those of the Node authorizer with AuthorizeNodeWithSelectors; what a node may write into the
objects that it may write is checked by `restriction`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from wasmlet.controlplane.access.rights import Rights
from wasmlet.controlplane.access.users import ANONYMOUS, UNAUTHENTICATED, User
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Store

_OPEN = ("/healthz", "/readyz", "/livez", "/version")
_DISCOVERY = ("/api", "/apis", "/openapi", *_OPEN)
READ = ("get", "list", "watch")
_EVENT_VERBS = ("create", "patch", "update")


@attrs.frozen
class Attributes:
    """A request as authorizers see it. `path` is set where the request is about no resource (`/healthz`)."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    node_name: str | None = None
    """The value that a field selector demands of spec.nodeName."""

    @property
    def target(self) -> str:
        """The resource with its subresource, as rules write it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def _under(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root + "/") for root in roots)


def references(pod: Object) -> Iterator[tuple[str, str]]:
    """The objects that a pod refers to by name, as (resource, name): what its node may read."""
    spec = pod.get("spec", {})
    if account := spec.get("serviceAccountName"):
        yield "serviceaccounts", account
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", secret.get("name", "")
    for which in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(which) or ():
            for source in container.get("envFrom") or ():
                yield from _named(source.get("configMapRef"), "configmaps")
                yield from _named(source.get("secretRef"), "secrets")
            for env in container.get("env") or ():
                source = env.get("valueFrom") or {}
                yield from _named(source.get("configMapKeyRef"), "configmaps")
                yield from _named(source.get("secretKeyRef"), "secrets")
    for volume in spec.get("volumes") or ():
        yield from _volume(volume)
        if volume.get("ephemeral") is not None:
            yield "persistentvolumeclaims", f"{pod['metadata']['name']}-{volume['name']}"
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield from _volume(source)


def _named(ref: Any, resource: str) -> Iterator[tuple[str, str]]:
    if isinstance(ref, dict) and ref.get("name"):
        yield resource, ref["name"]


def _volume(source: Object) -> Iterator[tuple[str, str]]:
    yield from _named(source.get("configMap"), "configmaps")
    secret = source.get("secret")
    if isinstance(secret, dict) and (name := secret.get("secretName") or secret.get("name")):
        yield "secrets", name
    claim = source.get("persistentVolumeClaim")
    if isinstance(claim, dict) and claim.get("claimName"):
        yield "persistentvolumeclaims", claim["claimName"]
    for driver in ("csi", "flexVolume", "cephfs", "rbd", "iscsi", "scaleIO", "storageos", "azureFile"):
        plugin = source.get(driver)
        if isinstance(plugin, dict):
            yield from _named(plugin.get("nodePublishSecretRef") or plugin.get("secretRef"), "secrets")


class Authorizer:
    """Decides on requests. It reads the store to see which objects the pods of a node refer to."""

    def __init__(self, store: Store, rights: Rights) -> None:
        self._store = store
        self._rights = rights

    def check(self, user: User, what: Attributes) -> None:
        """Check that a user may make a request.

        Raises:
            ApiError: 403 with the reason.
        """
        why = self.denial(user, what)
        if why is not None:
            raise _refused(user, what, why)

    def denial(self, user: User, what: Attributes) -> str | None:
        """Why a request is refused, "" where there is no more to say; None if it is allowed."""
        if user.master or self._rights.allow(user, what):
            return None
        if what.path:
            public = _OPEN if UNAUTHENTICATED in user.groups else _DISCOVERY
            return None if what.verb == "get" and _under(what.path, public) else ""
        if what.verb == "create" and what.resource in ("selfsubjectaccessreviews", "selfsubjectreviews"):
            return "" if user == ANONYMOUS else None
        node = user.node
        return "" if node is None else self._node(node, what)

    def _node(self, node: str, what: Attributes) -> str | None:
        verb, target = what.verb, what.target
        match (what.group, target):
            case ("", "configmaps" | "secrets" | "persistentvolumeclaims"):
                if verb not in READ:
                    return f"can only read {what.resource}"
                if what.resource == "persistentvolumeclaims" and verb != "get":
                    return "can only read resources of this type by name"
                if not what.name:
                    return "can only read resources of this type by name"
                return self._refers(node, what)
            case ("", "persistentvolumes"):
                if verb != "get" or not what.name:
                    return "can only read resources of this type by name"
                return self._binds(node, what)
            case ("", "persistentvolumeclaims/status"):
                return self._refers(node, what) if verb in ("patch", "update") else ""
            case ("", "serviceaccounts/token"):
                return self._refers(node, what) if verb == "create" else "can only create tokens"
            case ("", "nodes"):
                return self._own_node(node, what)
            case ("", "nodes/status"):
                return None if verb in ("patch", "update") else ""
            case ("", "pods"):
                return self._pods(node, what)
            case ("", "pods/status"):
                return None if verb in ("patch", "update") else ""
            case ("", "pods/eviction"):
                return None if verb == "create" else ""
            case ("", "services"):
                return None if verb in READ else ""
            case ("", "endpoints"):
                return None if verb == "get" else ""
            case ("", "events") | ("events.k8s.io", "events"):
                return None if verb in _EVENT_VERBS else ""
            case ("coordination.k8s.io", "leases"):
                return self._lease(node, what)
            case ("node.k8s.io", "runtimeclasses") | ("storage.k8s.io", "csidrivers"):
                return None if verb in READ else ""
            case ("certificates.k8s.io", "certificatesigningrequests"):
                return None if verb in ("create", *READ) else ""
            case ("authentication.k8s.io", "tokenreviews"):
                return None if verb == "create" else ""
            case ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews"):
                return None if verb == "create" else ""
        return ""

    def _refers(self, node: str, what: Attributes) -> str | None:
        wanted = (what.resource, what.name)
        for record in self._store["pods"].on_node(node):
            if record.namespace == what.namespace and wanted in references(record.raw):
                return None
        return f"no relationship found between node '{node}' and this object"

    def _binds(self, node: str, what: Attributes) -> str | None:
        """Allow a node to read a volume if one of its pods refers to the claim that the volume is bound to."""
        volume = self._store["persistentvolumes"].get("", what.name)
        claim = (volume.raw["spec"].get("claimRef") or {}) if volume is not None else {}
        wanted = ("persistentvolumeclaims", str(claim.get("name")))
        for record in self._store["pods"].on_node(node):
            if record.namespace == claim.get("namespace") and wanted in references(record.raw):
                return None
        return f"no relationship found between node '{node}' and this object"

    def _own_node(self, node: str, what: Attributes) -> str | None:
        if what.verb in ("create", "patch", "update"):
            return None  # NodeRestriction refuses those of other nodes
        if what.verb not in READ:
            return ""
        return None if what.name == node else f"node '{node}' cannot read '{what.name}', only its own Node object"

    def _pods(self, node: str, what: Attributes) -> str | None:
        if what.verb in ("create", "delete"):
            return None
        if what.verb in ("list", "watch") and what.node_name == node:
            return None
        if what.verb in READ and what.name:
            record = self._store["pods"].get(what.namespace, what.name)
            if record is not None and record.node == node:
                return None
            # This refuses a pod that is deleted, too: nothing says any longer that it was on this node.
            return f"no relationship found between node '{node}' and this object"
        if what.verb in ("list", "watch"):
            return "can only list/watch pods with spec.nodeName field selector"
        return ""

    def _lease(self, node: str, what: Attributes) -> str | None:
        if what.verb not in ("get", "create", "update", "patch", "delete"):
            return "can only get, create, update, patch, or delete a node lease"
        if what.namespace != "kube-node-lease":
            return 'can only access leases in the "kube-node-lease" system namespace'
        if what.verb != "create" and what.name != node:
            return "can only access node lease with the same name as the requesting node"
        return None


def _refused(user: User, what: Attributes, why: str) -> ApiError:
    if what.path:
        message = f'forbidden: User "{user.name}" cannot {what.verb} path "{what.path}"'
        return ApiError(403, "Forbidden", message, details={})
    qualified = f"{what.resource}.{what.group}" if what.group else what.resource
    name = f' "{what.name}"' if what.name else ""
    scope = f'in the namespace "{what.namespace}"' if what.namespace else "at the cluster scope"
    message = (
        f'{qualified}{name} is forbidden: User "{user.name}" cannot {what.verb} resource "{what.target}" '
        f'in API group "{what.group}" {scope}' + (f": {why}" if why else "")
    )
    details: Object = {"kind": what.resource}
    if what.name:
        details["name"] = what.name
    if what.group:
        details["group"] = what.group
    return ApiError(403, "Forbidden", message, details=details)
