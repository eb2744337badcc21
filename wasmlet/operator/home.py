"""Where a pool's nodes are: Nodes and pools are the whole cluster's, but an operator sees the pods of one namespace."""

from __future__ import annotations

from wasmlet.kube import Client, errors
from wasmlet.operator.objects import bound, prefixed
from wasmlet.operator.pool import LABEL, Pool

BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"


async def home_of(client: Client, pool: str, own: str) -> str | None:
    """The namespace of the pool's nodes, which their rights name; None where there are none yet, or it is gone.

    To an operator of another namespace all Nodes of the pool would look as if they had no pod.

    Args:
        own: the namespace of the operator that asks.

    Raises:
        ApiError: the API server does not say.
    """
    try:
        found = await client.get(f"{BINDINGS}/{prefixed(pool)}")
    except errors.ObjectNotFound:
        return None
    if (found["metadata"].get("labels") or {}).get(LABEL) != pool:
        return None
    namespace = next((str(one["namespace"]) for one in found.get("subjects") or () if one.get("namespace")), None)
    if namespace is None or namespace == own:
        return namespace
    try:
        await client.get(f"/api/v1/namespaces/{namespace}")
    except errors.ObjectNotFound:
        return None
    return namespace


async def claim(client: Client, pool: Pool, own: str) -> str | None:
    """Have the nodes of a pool that has none in the operator's namespace; of two operators one is the first.

    Returns:
        The namespace of its nodes then; None where that of another is gone.

    Raises:
        ApiError: the API server does not take it.
    """
    _, binding = bound(pool, own, prefixed(pool.name), [])
    try:
        await client.create(BINDINGS, binding.body)
    except errors.AlreadyExists:
        return await home_of(client, pool.name, own)
    return own
