"""Finds the namespace of a pool's nodes. Pools belong to the whole cluster, but an operator works in one namespace."""

from __future__ import annotations

from typing import Protocol

import structlog

from wasmlet.kube import Client, errors
from wasmlet.model.pod import Raw
from wasmlet.operator.objects import bound, prefixed
from wasmlet.operator.pool import LABEL, Pool

BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"

log = structlog.get_logger(__name__)


class _Tell(Protocol):
    """Records an event of the pool."""

    def __call__(self, reason: str, message: str, *, warning: bool = False) -> None: ...


class Home:
    """Where the nodes of one pool are.

    Args:
        own: the namespace of this operator.
    """

    def __init__(self, client: Client, name: str, own: str, tell: _Tell) -> None:
        self._client, self._name, self._own, self._tell = client, name, own, tell
        self._found: str | None = None
        """The namespace of the pool's nodes, where that is known."""

    async def is_here(self, raw: Raw, *, removing: bool) -> bool:
        """Whether the pool's nodes are in this operator's namespace, or in none yet.

        A pool that has none is claimed, unless it is being deleted. Where they are elsewhere, this operator changes
        nothing, not even the status: another operator may write that.

        Args:
            raw: the pool.
            removing: whether it is being deleted.

        Raises:
            ApiError: the API server does not say, or does not take the claim.
        """
        if self._found != self._own:
            before, self._found = self._found, await home_of(self._client, self._name, self._own)
            if self._found is None and not removing:
                self._found = await claim(self._client, Pool.of(raw), self._own)
            if self._found not in (None, self._own):
                if self._found != before:
                    said = f"its nodes are in namespace {self._found}, and this operator is for {self._own}"
                    said += ": it does nothing"
                    log.warning("a pool is another operator's", pool=self._name, why=said)
                    self._tell("OtherNamespace", said, warning=True)
                return False
        return True


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
