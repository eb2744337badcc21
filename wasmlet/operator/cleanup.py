"""Removes all pools. This is done before the operator itself is removed, because a pool's finalizer waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import structlog

from wasmlet.errors import ConfigError
from wasmlet.kube import Client, errors
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.operator.home import home_of
from wasmlet.operator.keeper import Keeper
from wasmlet.operator.pool import FINALIZER, POOLS
from wasmlet.operator.shared import Shared

log = structlog.get_logger(__name__)

PAGE = "500"


async def remove_all(shared: Shared) -> None:
    """Delete every pool. Its nodes are drained first, as disruption budgets and each pool's drainTimeout allow.

    An operator may run at the same time.

    Raises:
        ConfigError: a pool's nodes are in another namespace; nothing is removed then.
        ApiError: pools cannot be listed or deleted.
    """
    try:
        pools = await _listed(shared.client)
    except errors.ObjectNotFound:
        log.info("the cluster has no WasmNodePools: nothing is to be removed")
        return
    own = shared.config.namespace
    for name in (pool["name"] for pool in pools):
        if (home := await home_of(shared.client, name, own)) not in (None, own):
            raise ConfigError(f"pool {name} has its nodes in namespace {home}, not in {own}: try --namespace {home}")
    async with asyncio.TaskGroup() as group:
        for pool in pools:
            group.create_task(_remove(shared, pool))


async def _listed(client: Client) -> list[dict[str, Any]]:
    """The metadata of all pools."""
    found, params = [], {"limit": PAGE}
    while True:
        page = await client.get(POOLS, **params)
        found += [pool["metadata"] for pool in page["items"]]
        if not (more := page["metadata"].get("continue")):
            return found
        params["continue"] = more


async def _remove(shared: Shared, metadata: dict[str, Any]) -> None:
    name, uid = metadata["name"], metadata["uid"]
    path = f"{POOLS}/{name}"
    with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
        await shared.client.delete(path, {"preconditions": {"uid": uid}})
        log.info("a pool is removed", pool=name)
        await Keeper(name, uid, shared, lambda: shared.client.get(path), removing=True).run()
        await _release(shared, path, uid)
        log.info("a pool is gone", pool=name)


async def _release(shared: Shared, path: str, uid: str) -> None:
    """Remove the finalizer of the pool, unless an operator has already done so."""
    while True:
        found = (await shared.client.get(path))["metadata"]
        if found["uid"] != uid or FINALIZER not in (found.get("finalizers") or ()):
            return
        left = [one for one in found["finalizers"] if one != FINALIZER]
        patch = {"metadata": {"resourceVersion": found["resourceVersion"], "finalizers": left}}
        try:
            await shared.client.patch(path, patch, MERGE_PATCH)
        except errors.Conflict:
            continue  # somebody else has changed it meanwhile
        return
