"""Where a pool's nodes are: Nodes and pools are the whole cluster's, but an operator sees the pods of one namespace."""

from __future__ import annotations

from wasmlet.kube import Client, errors
from wasmlet.operator.objects import prefixed
from wasmlet.operator.pool import LABEL

BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"


async def home_of(client: Client, pool: str) -> str | None:
    """The namespace of the pool's nodes, which their rights name; None where there are none yet.

    To an operator of another namespace all Nodes of the pool would look as if they had no pod.

    Raises:
        ApiError: the API server does not say.
    """
    try:
        found = await client.get(f"{BINDINGS}/{prefixed(pool)}")
    except errors.ObjectNotFound:
        return None
    if (found["metadata"].get("labels") or {}).get(LABEL) != pool:
        return None
    return next((one["namespace"] for one in found.get("subjects") or () if one.get("namespace")), None)
