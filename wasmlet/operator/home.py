"""Finds the namespace of a pool's nodes. Pools belong to the whole cluster, but an operator works in one namespace."""

from __future__ import annotations

from wasmlet.kube import Client, errors
from wasmlet.operator.objects import bound, prefixed
from wasmlet.operator.pool import LABEL, Pool

BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"


async def home_of(client: Client, pool: str, own: str) -> str | None:
    """The namespace of the pool's nodes; None where the pool has no nodes yet, or where that namespace is gone.

    It is read from the pool's ClusterRoleBinding, whose subject is a service account of that namespace. An operator of
    another namespace must not act: it does not see the pods, so all Nodes of the pool would look as if they had none.

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
    """Claim a new pool for this operator's namespace, by its ClusterRoleBinding. Where two operators try, one succeeds.

    Returns:
        The namespace that has the pool now; None where another one has it, and that one is gone.

    Raises:
        ApiError: the API server does not take it.
    """
    _, binding = bound(pool, own, prefixed(pool.name), [])
    try:
        await client.create(BINDINGS, binding.body)
    except errors.AlreadyExists:
        return await home_of(client, pool.name, own)
    return own
