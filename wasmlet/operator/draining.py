"""The nodes of a pool that are being emptied: cordoned, with a task each, and released where they are wanted again."""

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
"""The least time between two times that a node is cordoned: somebody else may always undo it."""


class Drains:
    """Use as an async context manager; what is under way ends with it, and goes on where another begins.

    Since when a node is emptied stands in an annotation of its Node, so a restart of the operator gives no more time.
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
        """Names of the nodes that nobody has been told of yet."""

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
        """UIDs of the Nodes that are empty, or have had the time for it."""
        found = {uid for uid, (drain, _) in self._tasks.items() if drain.empty}
        now = self._shared.clock.now()
        for node in _nodes(seen):
            if node.draining is None or (now - node.draining).total_seconds() < timeout:
                self._overdue.discard(node.uid)
                continue
            if node.uid not in found and node.uid not in self._overdue:
                self._overdue.add(node.uid)
                self._tell("DrainTimedOut", f"node {node.name} is not empty after {timeout:g} s and ends", warning=True)
            found.add(node.uid)
        return found

    def progress(self) -> list[Emptying]:
        """How far each of those is that are under way."""
        return [Emptying(drain.node, drain.left, drain.held) for drain, _ in self._tasks.values() if not drain.empty]

    async def follow(self, nodes: Sequence[NodeSeen], seen: Seen, seconds: float) -> float | None:
        """Empty these nodes and no others; those that are empty are kept so.

        Args:
            seconds: how long emptying one may take.

        Returns:
            In how many seconds there is more to do, as one is overdue; None where nothing will be.
        """
        wanted = {node.uid for node in nodes}
        # A Node outlives its emptying: that it was empty once says nothing from when it has taken pods again.
        drained = {node.uid for node in _nodes(seen) if node.draining is not None}
        for uid in list(self._tasks):
            if uid not in drained or uid not in wanted:
                self._forget(uid)
        due = []
        for node in nodes:
            if (wait := await self._begin(node)) is not None:
                due.append(wait)
            now = self._shared.clock.now()
            if (left := ((node.draining or now) - now).total_seconds() + seconds) > 0:
                due.append(left)
        if self._begun:
            said, self._begun = some(self._begun), []
            self._tell("Draining", f"{said}: no more pods are taken, and those that are there are asked to leave")
        return max(0.05, min(due)) if due else None

    async def release(self, node: NodeSeen) -> None:
        """The node is wanted again."""
        patch = _patch(node, {DRAINING: None, CORDONED_BEFORE: None})
        if CORDONED_BEFORE not in node.annotations:
            patch["spec"] = {"unschedulable": None}
        self._forget(node.uid)  # first: the answer may be lost
        if await self._write(node, patch):
            log.info("a node takes pods again", pool=self._pool, node=node.name)

    def _forget(self, uid: str) -> None:
        if uid in self._tasks:
            self._tasks.pop(uid)[1].cancel()

    async def _begin(self, node: NodeSeen) -> float | None:
        """Cordon the node, and have it emptied.

        Returns:
            In how many seconds to do that, where it was cordoned just now; None where it is done.
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
        """Whether the Node is still there and was changed."""
        with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
            answer = await self._shared.client.patch(f"{paths.NODES}/{node.name}", patch, MERGE_PATCH)
            self._shared.fleet.nodes.applied(answer)
            return True
        return False


def _patch(node: NodeSeen, annotations: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"uid": node.uid, "annotations": annotations}}


def _nodes(seen: Seen) -> Iterator[NodeSeen]:
    return (member.node for member in seen.members if member.node is not None)
