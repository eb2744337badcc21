"""The drains of one pool: cordons a node, starts a task that drains it, and uncordons one that is wanted again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import structlog

from wasmlet.kube import errors, paths
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.model.times import rfc3339
from wasmlet.operator.drain import Drain
from wasmlet.operator.seen import CORDONED_BEFORE, DRAINING, NodeSeen, Seen
from wasmlet.operator.shared import Shared, Tell
from wasmlet.operator.status import Emptying, some

log = structlog.get_logger(__name__)

CORDON_SECONDS = 5.0
"""The least time between two cordons of the same node: somebody else may undo each of them."""
END_SECONDS = 60.0
"""How long an agent has, after the drain of its node has timed out, to end the pods that are deleted then. Guests of
other nodes end with the pod of their node, so those need no such time."""


class Drains:
    """All drains of one pool. Use it as an async context manager; its exit cancels the drains.

    An annotation of the Node says since when it is drained. So after a restart the operator continues the drain, and
    the timeout does not begin again.
    """

    def __init__(self, shared: Shared, pool: str, tell: Tell) -> None:
        self._shared = shared
        self._pool = pool
        self._tell = tell
        self._group = asyncio.TaskGroup()
        self._tasks: dict[str, tuple[Drain, asyncio.Task[None]]] = {}
        """By UID of the Node."""
        self._cordoned: dict[str, float] = {}
        self._overdue: set[str] = set()
        self._begun: list[str] = []
        """Names of the nodes whose drain has begun, and for which no event has been recorded yet."""

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, task in self._tasks.values():
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def emptied(self, seen: Seen, timeout: float) -> set[str]:
        """UIDs of the Nodes that are empty, or whose drain has taken `timeout` seconds or more; of agents, longer."""
        found = {uid for uid, (drain, _) in self._tasks.items() if drain.empty}
        agents = _agents(seen)
        for node in _nodes(seen):
            if (over := self._over(node, timeout)) < 0:
                self._overdue.discard(node.uid)
                continue
            if node.uid not in found and node.uid not in self._overdue:
                self._overdue.add(node.uid)
                then = "its pods are deleted" if node.uid in agents else "it ends"
                self._tell("DrainTimedOut", f"node {node.name} is not empty after {timeout:g} s: {then}", warning=True)
            if node.uid not in agents or over >= END_SECONDS:
                found.add(node.uid)
        return found

    def _over(self, node: NodeSeen, timeout: float) -> float:
        """For how many seconds the drain of a node has been overdue; negative while it is not."""
        if node.draining is None:
            return float("-inf")
        return (self._shared.clock.now() - node.draining).total_seconds() - timeout

    def progress(self) -> list[Emptying]:
        """The state of each drain that is not done."""
        return [Emptying(drain.node, drain.left, drain.held) for drain, _ in self._tasks.values() if not drain.empty]

    async def follow(self, nodes: Sequence[NodeSeen], seen: Seen, seconds: float) -> float | None:
        """Drain these nodes and no others; a node that is empty is kept so.

        Once the drain of an agent's node has timed out, its pods are deleted: they would outlive their Node.

        Args:
            seconds: how long the drain of one node may take.

        Returns:
            In how many seconds to call this again, as a drain times out then or a node must be cordoned again; None
            where no node needs that.
        """
        wanted = {node.uid for node in nodes}
        # A Node object can outlive its drain. After a release it takes pods again, so the old result is dropped.
        drained = {node.uid for node in _nodes(seen) if node.draining is not None}
        for uid in list(self._tasks):
            if uid not in drained or uid not in wanted:
                self._forget(uid)
        due, agents = [], _agents(seen)
        for node in nodes:
            if (wait := await self._begin(node)) is not None:
                due.append(wait)
            now = self._shared.clock.now()
            left = ((node.draining or now) - now).total_seconds() + seconds
            if left <= 0 and node.uid in agents:
                left += END_SECONDS
                if node.uid in self._tasks:
                    self._tasks[node.uid][0].insist()
            if left > 0:
                due.append(left)
        if self._begun:
            said, self._begun = some(self._begun), []
            self._tell("Draining", f"{said}: no more pods are taken, and those that are there are asked to leave")
        return max(0.05, min(due)) if due else None

    async def release(self, node: NodeSeen) -> None:
        """Stop the drain of a node that is wanted again.

        The node is uncordoned, unless somebody else had cordoned it before the drain.
        """
        patch = _patch(node, {DRAINING: None, CORDONED_BEFORE: None})
        if CORDONED_BEFORE not in node.annotations:
            patch["spec"] = {"unschedulable": None}
        self._forget(node.uid)  # before the write, whose answer may be lost
        if await self._write(node, patch):
            log.info("a node takes pods again", pool=self._pool, node=node.name)

    def _forget(self, uid: str) -> None:
        if uid in self._tasks:
            self._tasks.pop(uid)[1].cancel()

    async def _begin(self, node: NodeSeen) -> float | None:
        """Cordon the node, and start its drain.

        Returns:
            In how many seconds to try again, where this cordoned it a moment ago; None where there is nothing to try.
        """
        shared = self._shared
        if node.draining is None or not node.cordoned:
            left = self._cordoned.get(node.uid, float("-inf")) + CORDON_SECONDS - shared.clock.monotonic()
            if left > 0:
                return left
            annotations: dict[str, Any] = {}
            if node.draining is None:
                annotations = {DRAINING: rfc3339(shared.clock.now())}
                if node.cordoned:
                    annotations[CORDONED_BEFORE] = "true"
            patch = _patch(node, annotations) | {"spec": {"unschedulable": True}}
            written = await self._write(node, patch)
            self._cordoned[node.uid] = shared.clock.monotonic()
            if not written:
                return None
            if node.draining is None:
                log.info("a node is emptied", pool=self._pool, node=node.name)
                self._begun.append(node.name)
        if node.uid not in self._tasks:
            wake = shared.wakes.of(self._pool)
            drain = Drain(shared.evicting, node.name, shared.clock, shared.rng, wake.set)
            task = self._group.create_task(drain.run(), name=f"drain {node.name}")
            task.add_done_callback(lambda _: wake.set())
            self._tasks[node.uid] = drain, task
        return None

    async def _write(self, node: NodeSeen, patch: dict[str, Any]) -> bool:
        """Patch the Node. Returns whether it still exists and was changed."""
        with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
            answer = await self._shared.client.patch(f"{paths.NODES}/{node.name}", patch, MERGE_PATCH)
            self._shared.fleet.nodes.applied(answer)
            return True
        return False


def _patch(node: NodeSeen, annotations: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"uid": node.uid, "annotations": annotations}}


def _agents(seen: Seen) -> set[str]:
    """The UIDs of the Nodes of agents."""
    return {member.node.uid for member in seen.members if member.remote and member.node is not None}


def _nodes(seen: Seen) -> Iterator[NodeSeen]:
    return (member.node for member in seen.members if member.node is not None)
