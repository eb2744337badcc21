"""One pool is kept as its object says: look, decide, do the next steps, wait until something changes."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import structlog

from wasmlet.clock import either
from wasmlet.failures import described
from wasmlet.kube import errors, later, paths
from wasmlet.kube.client import JSON_PATCH, MERGE_PATCH
from wasmlet.model.pod import Raw
from wasmlet.operator import objects
from wasmlet.operator.applying import Applier
from wasmlet.operator.classes import make_classes
from wasmlet.operator.draining import Drains
from wasmlet.operator.dressing import dressed
from wasmlet.operator.node_pod import check_config
from wasmlet.operator.plan import Plan, planned
from wasmlet.operator.pool import GROUP, KIND, LABEL, POOLS, VERSION, Autoscaling, Pool, Unusable
from wasmlet.operator.scaling import Scaler
from wasmlet.operator.seen import Seen
from wasmlet.operator.shared import Shared
from wasmlet.operator.status import stamped, status_of

log = structlog.get_logger(__name__)

LOOK_SECONDS = 600.0
"""A pool is looked at that often where nothing is heard of it."""
SETTLE_SECONDS = 0.1
"""Changes come in flocks; a look waits so long for the rest of one."""
Ask = Callable[[], Awaitable[Raw]]


class Keeper:
    """Keeps one pool.

    Args:
        uid: of the pool.
        ask: gives the pool's object as it is now.
        removing: the pool is deleted: its nodes end, and `run` with them.
    """

    def __init__(self, name: str, uid: str, shared: Shared, ask: Ask, *, removing: bool) -> None:
        self._name = name
        self._uid = uid
        self._shared = shared
        self._ask = ask
        self._removing = removing
        self._wake = shared.wakes.of(name)
        self._applier = Applier(shared.client, shared.fleet, name, shared.clock)
        self._answered: Raw = {}
        """The pool, as the API server answered when its status was written last."""
        self._scaler = Scaler(shared.client, shared.waiting, shared.clock)
        self._classes: Collection[str] = ()
        """The engines whose RuntimeClasses are there."""
        self._free: set[str] = set()
        """Names that are no Node's of somebody else."""

    async def run(self) -> None:
        """Keep the pool until cancelled, or until it is gone."""
        shared = self._shared
        await shared.fleet.in_sync()
        pauses = shared.client.recovery.pauses(shared.pacing.backoff, shared.clock, shared.rng)
        async with Drains(shared, self._name, self._tell) as drains:
            while True:
                self._wake.clear()
                pauses.begin()
                try:
                    again = await self._look(drains)
                except errors.ApiError as error:
                    log.warning("a pool is not as it is to be, trying again", pool=self._name, **described(error))
                    shared.metrics.failed(self._name)
                    await pauses.wait()
                    continue
                if again is None:
                    return
                await either(shared.clock, again, self._wake)
                await shared.clock.sleep(SETTLE_SECONDS)

    async def _look(self, drains: Drains) -> float | None:
        """One look and the steps that follow.

        Returns:
            In how many seconds to look again at the latest; None when the pool is gone.
        """
        try:
            raw = await self._ask()
            if raw["metadata"]["uid"] != self._uid:
                return None
            pool = await self._with_replicas(Pool.of(raw))
        except errors.ObjectNotFound:
            return None
        seen = self._shared.fleet.of(self._name)
        if self._removing and _over(seen, pool.uid):
            return None
        wanted = 0 if self._removing else pool.replicas or 0
        plan = planned(wanted, seen, drains.emptied(seen, pool.drain_timeout), pool.max_unavailable)
        trouble, again = None, [LOOK_SECONDS]
        try:
            if pool.autoscaling is not None and not self._removing:
                again.append(await self._scale(pool, pool.autoscaling, seen))
            await self._check(pool, plan, seen)
            mend = await self._apply(pool, plan, seen)
            due = await drains.follow(plan.drain, seen, pool.drain_timeout)
            again += [wait for wait in (mend, due) if wait is not None]
            for node in plan.release:
                await drains.release(node)
            await self._step(pool, plan, seen)
        except Unusable as error:
            trouble = error
        status = status_of(pool, seen, plan, drains.progress(), trouble=trouble, removing=self._removing)
        await self._report(raw, status)
        self._shared.metrics.looked(
            self._name,
            wanted=wanted,
            ready=status["readyReplicas"],
            updated=status["updatedReplicas"],
            draining=len(plan.drain),
        )
        return min(again)

    async def _with_replicas(self, pool: Pool) -> Pool:
        """The pool with a number of nodes: where nobody says one, an autoscaler of pods would leave it alone."""
        if pool.replicas is not None or self._removing:
            return pool
        count = 1 if pool.autoscaling is None else pool.autoscaling.least
        patch = {"metadata": {"uid": pool.uid}, "spec": {"replicas": count}}
        return Pool.of(await self._shared.client.patch(f"{POOLS}/{pool.name}", patch, MERGE_PATCH))

    async def _check(self, pool: Pool, plan: Plan, seen: Seen) -> None:
        """See that the pool can be as it says.

        Raises:
            Unusable: it cannot.
        """
        if not self._removing:
            check_config(pool)
        if seen.set is not None and pool.uid not in seen.set.owners:
            raise Unusable(
                "NameTaken", f"the StatefulSet {pool.name} is not this pool's; delete it, or rename the pool"
            )
        have = 0 if seen.set is None else seen.set.replicas
        for name in (pool.node(ordinal) for ordinal in range(have, plan.replicas)):
            if name not in self._free:
                await self._check_free(name)
                self._free.add(name)

    async def _check_free(self, name: str) -> None:
        """The nodes of a pool may act as the Nodes of their names, so none may be another machine's."""
        try:
            found = await self._shared.client.get(f"{paths.NODES}/{name}")
        except errors.ObjectNotFound:
            return
        if (found["metadata"].get("labels") or {}).get(LABEL) != self._name:
            raise Unusable("NameTaken", f"there is a Node {name} that is not of this pool; rename the pool")

    async def _scale(self, pool: Pool, rules: Autoscaling, seen: Seen) -> float:
        """Change how many nodes the pool wants; the next look sees it. Returns in how many seconds to look again."""
        wish, again = await self._scaler.wish(pool, rules, seen)
        if wish != pool.replicas:
            test = {"op": "test", "path": "/spec/replicas", "value": pool.replicas}
            patch = [test, {"op": "replace", "path": "/spec/replicas", "value": wish}]
            try:
                await self._shared.client.patch(f"{POOLS}/{pool.name}", patch, JSON_PATCH)
            except errors.Invalid:
                return again  # somebody else has changed it meanwhile
            why = "pods find no node" if wish > (pool.replicas or 0) else "the last node has no pods"
            self._tell("Autoscaled", f"from {pool.replicas} to {wish} nodes: {why}")
        return again

    # --- steps

    async def _apply(self, pool: Pool, plan: Plan, seen: Seen) -> float | None:
        """Make all objects what they are to be. Of a pool that goes only the number of its nodes is changed."""
        if self._removing and (seen.set is None or seen.set.replicas == plan.replicas):
            return None
        config = self._shared.config
        names = [pool.node(ordinal) for ordinal in range(plan.replicas)]
        names += [member.name for member in seen.members if member.ordinal >= plan.replicas]
        engines = {*pool.engines, pool.provider}
        if not self._removing and engines != self._classes:
            await make_classes(self._shared.client, sorted(engines))
            self._classes = engines
        if seen.set is not None and seen.set.replicas < plan.replicas:
            self._tell("ScalingUp", f"from {seen.set.replicas} to {plan.replicas} nodes")
        made = objects.of_nodes(pool, config.namespace, config.node_image, plan.replicas, names)
        return await self._applier.apply(made)

    async def _step(self, pool: Pool, plan: Plan, seen: Seen) -> None:
        client, namespace = self._shared.client, self._shared.config.namespace
        for pod in plan.restart:
            path = f"/api/v1/namespaces/{namespace}/pods/{pod.name}"
            with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
                await client.delete(path, {"preconditions": {"uid": pod.uid}})
                log.info("a node is made anew", pool=self._name, node=pod.name)
                self._tell("NodeRestarted", f"node {pod.name} is made anew, as the pool says now")
        for node in plan.forget:
            if await self._has_pod(node.name):
                continue  # the watch of pods is behind
            with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
                await client.delete(f"{paths.NODES}/{node.name}", {"preconditions": {"uid": node.uid}})
                log.info("a node is gone", pool=self._name, node=node.name)
                self._tell("NodeRemoved", f"node {node.name} is gone")
        for member in () if self._removing else seen.members:
            if member.node is not None and (patch := dressed(pool, member.node)) is not None:
                with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
                    await client.patch(f"{paths.NODES}/{member.name}", patch, MERGE_PATCH)

    async def _has_pod(self, name: str) -> bool:
        """Whether the node has a pod, which would make its Node again."""
        try:
            await self._shared.client.get(f"/api/v1/namespaces/{self._shared.config.namespace}/pods/{name}")
        except errors.ObjectNotFound:
            return False
        return True

    async def _report(self, raw: Raw, status: dict[str, Any]) -> None:
        """Write the status where it says something new."""
        if self._answered and not later(version_of(raw), version_of(self._answered)):
            raw = self._answered
        if (changed := stamped(status, raw.get("status") or {}, self._shared.clock.now())) is None:
            return
        body = {"metadata": {"uid": self._uid}, "status": changed}
        with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
            self._answered = await self._shared.client.patch(f"{POOLS}/{self._name}/status", body, MERGE_PATCH)

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        pool = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": self._name, "uid": self._uid}
        self._shared.events.record(pool, reason, message, "Warning" if warning else "Normal")


def _over(seen: Seen, pool: str) -> bool:
    """Whether nothing is left of a pool that is deleted: no node, and nobody who is about to make one.

    Args:
        pool: its UID.
    """
    if seen.set is None or pool not in seen.set.owners:
        return not seen.members or seen.set is not None
    return not seen.members and seen.set.empty


def version_of(raw: Raw) -> str:
    return str(raw["metadata"]["resourceVersion"])
