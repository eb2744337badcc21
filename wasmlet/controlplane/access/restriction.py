"""NodeRestriction: what a node may write into the objects that the Node authorizer lets it write.

A node writes its own Node, Lease and pods only. It changes no taints after registration, sets no labels of
`kubernetes.io` beyond the kubelet's own, and creates mirror pods only. `objects.registry` asks before each write by a
node, `objects.deletion` and `objects.pod_operations` before each delete and eviction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wasmlet.controlplane.access import certificate_requests
from wasmlet.controlplane.access.authorizer import references
from wasmlet.controlplane.access.users import User
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import ApiError, Object, forbidden
from wasmlet.controlplane.storage.store import Store

MIRROR = "kubernetes.io/config.mirror"
_LABELS = {
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
}
_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")
RESTRICTED = "node-restriction.kubernetes.io"


def _in(domain: str, suffix: str) -> bool:
    return domain == suffix or domain.endswith("." + suffix)


def forbidden_labels(keys: Iterable[str]) -> list[str]:
    """The label keys that a node may not set or change on its Node."""
    out = []
    for key in keys:
        domain = key.rpartition("/")[0]
        if _in(domain, RESTRICTED):
            out.append(key)
        elif not (_in(domain, "kubernetes.io") or _in(domain, "k8s.io")) or key in _LABELS:
            continue
        elif not any(_in(domain, prefix) for prefix in _PREFIXES):
            out.append(key)
    return sorted(out)


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [key for key in {*old, *new} if old.get(key) != new.get(key)]


def _audiences(spec: Object) -> set[str]:
    """The audiences of tokens in a pod's volumes; "" is the API server (ServiceAccountNodeAudienceRestriction)."""
    sources = (
        source.get("serviceAccountToken")
        for volume in spec.get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
    )
    return {str(token.get("audience") or "") for token in sources if isinstance(token, dict)}


class NodeRestriction:
    """The checks; each does nothing for a user that is no node."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, user: User, kind: Kind, sub: str, new: Object, old: Object | None) -> None:
        """Check a create or an update.

        Raises:
            ApiError: 403 with the reason.
        """
        node = user.node
        if node is None:
            return
        name = str(new["metadata"].get("name", ""))
        match kind.key:
            case "nodes":
                self._node(node, kind, name, sub, new, old)
            case "pods" if old is None:
                self._create_pod(node, kind, name, new)
            case "pods" if old is not None:
                self._own_pod(node, kind, name, old, new)
            case "leases":
                if name != node or new["metadata"].get("namespace") != "kube-node-lease":
                    raise forbidden(
                        kind,
                        name,
                        f"can only access node lease with the same name as the requesting node, "
                        f"{node}, in kube-node-lease",
                    )
            case certificate_requests.PLURAL if old is None:
                self._request(node, kind, name, new)

    def delete(self, user: User, kind: Kind, old: Object) -> None:
        """Check a delete or an eviction of a pod by a node."""
        node = user.node
        if node is None or kind.key != "pods":
            return
        if (old.get("spec") or {}).get("nodeName") != node:
            who = old["metadata"]["name"]
            raise forbidden(kind, who, f'node "{node}" can only delete pods with spec.nodeName set to itself')

    def _own_pod(self, node: str, kind: Kind, name: str, old: Object, new: Object) -> None:
        if old["spec"].get("nodeName") != node:
            raise forbidden(
                kind, name, f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
            )
        if (old["metadata"].get("labels") or {}) != (new["metadata"].get("labels") or {}):
            raise forbidden(kind, name, f'node "{node}" cannot update labels through pod status')

    def _create_pod(self, node: str, kind: Kind, name: str, pod: Object) -> None:
        spec = pod.get("spec") or {}
        if MIRROR not in (pod["metadata"].get("annotations") or {}):
            raise forbidden(
                kind, name, f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
            )
        if spec.get("nodeName") != node:
            raise forbidden(kind, name, f'node "{node}" can only create pods with spec.nodeName set to itself')
        owners = pod["metadata"].get("ownerReferences") or []
        own = self._store["nodes"].get("", node)
        if len(owners) > 1 or any(
            (owner.get("kind"), owner.get("name")) != ("Node", node)
            or own is None
            or owner.get("uid") != own.raw["metadata"]["uid"]
            for owner in owners
        ):
            raise forbidden(kind, name, f'node "{node}" can only create pods owned by its own Node')
        if any(resource != "serviceaccounts" for resource, _ in references(pod)):
            raise forbidden(
                kind, name, f'node "{node}" can not create pods that reference secrets, configmaps or claims'
            )
        if spec.get("serviceAccountName"):
            raise forbidden(kind, name, f'node "{node}" can not create pods that reference a service account')

    def _node(self, node: str, kind: Kind, name: str, sub: str, new: Object, old: Object | None) -> None:
        if name != node:
            verb = "create" if old is None else "modify"
            raise forbidden(kind, name, f'node "{node}" is not allowed to {verb} node "{name}"')
        meta, before = new["metadata"], (old or {}).get("metadata", {})
        if wrong := forbidden_labels(_changed(before.get("labels") or {}, meta.get("labels") or {})):
            verb = "set" if old is None else "modify"
            raise forbidden(
                kind, name, f'node "{node}" is not allowed to {verb} the following labels: {", ".join(wrong)}'
            )
        if (meta.get("ownerReferences") or []) != (before.get("ownerReferences") or []):
            raise forbidden(kind, name, f'node "{node}" is not allowed to modify ownerReferences')
        if old is None:
            for taint in (new.get("spec") or {}).get("taints") or ():
                domain = str(taint.get("key", "")).rpartition("/")[0]
                if _in(domain, RESTRICTED):
                    raise forbidden(kind, name, f'node "{node}" is not allowed to set the taint {taint["key"]}')
        elif not sub and ((new.get("spec") or {}).get("taints") or []) != (old.get("spec", {}).get("taints") or []):
            raise forbidden(kind, name, f'node "{node}" is not allowed to modify taints')
        if (new.get("spec") or {}).get("configSource"):
            raise forbidden(kind, name, f'node "{node}" is not allowed to set configSource')

    def _request(self, node: str, kind: Kind, name: str, new: Object) -> None:
        spec = new.get("spec") or {}
        if spec.get("signerName") not in (certificate_requests.KUBELET_CLIENT, certificate_requests.KUBELET_SERVING):
            return
        try:
            own = certificate_requests.common_name(certificate_requests.parse(spec)) == f"system:node:{node}"
        except ValueError as error:
            raise forbidden(kind, name, f"unable to parse csr: {error}") from None
        if not own:
            raise forbidden(kind, name, f"can only create a node CSR with CN=system:node:{node}")

    def token(self, user: User, account: str, namespace: str, spec: Object) -> None:
        """Check a node's request for a service account's token: bound to a pod of that node, at most one audience.

        Raises:
            ApiError: 403 with the reason.
        """
        node = user.node
        if node is None:
            return
        kind = core("serviceaccounts")
        ref = spec.get("boundObjectRef") or {}
        if ref.get("kind") != "Pod" or ref.get("apiVersion", "v1") != "v1":
            raise self._token_error(kind, account, f'node "{node}" can only request tokens bound to a pod')
        if not ref.get("uid"):
            raise self._token_error(kind, account, "node requested token with a pod binding without a uid")
        pod = self._store["pods"].get(namespace, str(ref.get("name", "")))
        if pod is None or pod.node != node or pod.raw["metadata"]["uid"] != ref["uid"]:
            raise self._token_error(
                kind,
                account,
                f'node "{node}" requested a token bound to a pod scheduled on a different node, or to none',
            )
        if pod.raw["spec"].get("serviceAccountName") != account:
            raise self._token_error(kind, account, f"the pod runs under another service account than {account}")
        audiences = spec.get("audiences") or [""]
        if len(audiences) > 1:
            raise self._token_error(kind, account, "node may only request 0 or 1 audiences")
        if audiences[0] not in _audiences(pod.raw["spec"]):
            why = (
                f'audience "{audiences[0]}" not found in pod spec volume, {user.name} is not authorized to request '
                f"tokens for this audience"
            )
            raise self._token_error(kind, account, why)

    @staticmethod
    def _token_error(kind: Kind, name: str, why: str) -> ApiError:
        return forbidden(kind, name, why)
