"""The API paths of the objects that a node touches."""

from __future__ import annotations

import re

from wasmlet.kube import errors
from wasmlet.model.pod import PodKey

PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def pod(key: PodKey) -> str:
    return f"/api/v1/namespaces/{key.namespace}/pods/{key.name}"


def events(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/events"


_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def may_name(name: str) -> bool:
    """Whether an object of the kinds that a pod refers to can have this name: a subdomain in lower case (RFC 1123)."""
    return _SUBDOMAIN.fullmatch(name) is not None


def named(collection: str, name: str) -> str:
    """The object of that name in a collection, where the name is somebody else's word, such as a pod's.

    Raises:
        ObjectNotFound: no object can have that name, which would lead to another path.
    """
    if not may_name(name):
        details = {"kind": collection.rpartition("/")[2]}
        raise errors.ObjectNotFound(404, "NotFound", f"{name[:253]!r} is not the name of an object", details)
    return f"{collection}/{name}"


def written_kind(method: str, path: str) -> str:
    """The kind of object that this request writes to etcd; "" if it writes none, as reads, reviews and tokens do."""
    parts = path.strip("/").split("/")
    if method == "GET" or parts[1] in ("authentication.k8s.io", "authorization.k8s.io"):
        return ""
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    kind = rest[2] if rest[0] == "namespaces" and len(rest) > 2 else rest[0]
    return "" if rest[-1] == "token" else kind
