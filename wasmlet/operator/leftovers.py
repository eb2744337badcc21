"""Deletes a pool's objects after its nodes have ended, also where the pool itself is already gone."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

import structlog

from wasmlet.kube import Client, errors
from wasmlet.operator.home import home_of
from wasmlet.operator.objects import keys_namespace, paths_of, set_path
from wasmlet.operator.pool import LABEL, POOLS
from wasmlet.operator.seen import Seen, SetSeen
from wasmlet.operator.shared import Shared

log = structlog.get_logger(__name__)

LOOK_SECONDS = 60.0
KEY_TYPE = "wasmlet.dev/agent-key"
_AGENT = "wasmlet.dev/agent"
"""The label of the Secrets that hold agents' keys."""


async def remove_objects(client: Client, namespace: str, pool: str) -> None:
    """Delete the objects of a pool that has no nodes any more. Objects of the same names that are not the pool's stay.

    Raises:
        ApiError: one cannot be read or deleted, or the StatefulSet has pods again.
    """
    for path in paths_of(namespace, pool):
        with contextlib.suppress(errors.ObjectNotFound):
            raw = await client.get(path)
            metadata = raw["metadata"]
            if (metadata.get("labels") or {}).get(LABEL) != pool:
                continue
            before = {"uid": metadata["uid"]}
            if path == set_path(namespace, pool):  # the cache may be old, and the set's pods would end with it
                if not SetSeen.of(raw).empty:
                    raise errors.Conflict(409, "Conflict", f"StatefulSet {pool} has pods again")
                before["resourceVersion"] = metadata["resourceVersion"]
            await client.delete(path, {"preconditions": before})
    await take_back_keys(client, namespace, pool, ())


async def take_back_keys(client: Client, namespace: str, pool: str, kept: Collection[str]) -> None:
    """Delete the keys of a pool's agents, except those of the agents in `kept`. Other Secrets of that namespace stay.

    Raises:
        ApiError: they cannot be listed, or one cannot be deleted.
    """
    path = f"/api/v1/namespaces/{keys_namespace(namespace)}/secrets"
    found = await client.get(path, labelSelector=f"{_AGENT},{LABEL}={pool}", fieldSelector=f"type={KEY_TYPE}")
    names = {f"agent-{name}" for name in kept}
    for metadata in (one["metadata"] for one in found["items"]):
        if metadata["name"] not in names:
            with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
                await client.delete(f"{path}/{metadata['name']}", {"preconditions": {"uid": metadata["uid"]}})
                log.info("the key of an agent is taken back", pool=pool, secret=metadata["name"])


def nothing_runs(seen: Seen) -> bool:
    """Whether a pool has no node, and no StatefulSet that could still make one."""
    return not seen.members and (seen.set is None or seen.set.empty)


async def follow(shared: Shared) -> None:
    """Delete the objects of pools that are gone and have no nodes, again and again until cancelled.

    Such objects appear where a second operator, which does not yet know that the pool is gone, applies them again.
    """
    await shared.fleet.in_sync()
    while True:
        for pool in sorted(shared.fleet.pools()):
            try:
                await _remove(shared, pool)
            except errors.ApiError as error:
                log.warning("what a pool has left cannot be removed, trying again", pool=pool, error=str(error))
        await shared.clock.sleep(LOOK_SECONDS)


async def _remove(shared: Shared, pool: str) -> None:
    client, namespace = shared.client, shared.config.namespace
    fleet = shared.fleet
    if shared.wakes.knows(pool) or fleet.nodes.of(pool) or not nothing_runs(fleet.of(pool)):
        return  # its Nodes may be agents, whose host must stay until they are gone
    with contextlib.suppress(errors.ObjectNotFound):
        await client.get(f"{POOLS}/{pool}")
        return
    if await home_of(client, pool, namespace) in (None, namespace):
        log.info("a pool that is gone has left something, which is removed", pool=pool)
        await remove_objects(client, namespace, pool)
