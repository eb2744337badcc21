"""The node's lease: the heartbeat that tells the cluster that this node is alive.

40 s long, renewed every 10 s, held by the node's name, as a kubelet's is. It has a connection of its own, so that no
load on the others delays it: a lease that runs out makes the cluster move the pods elsewhere.

A renewal also shows the node whether the API server is away (`wasmlet.kube.recovery`). While it is away, a renewal is
tried each second. A new try does not wait for the one before, which may never be answered, even when the API server is
back.

The lease also shows whether a second process has the same node name. Both would write the same holder, the node's name.
So an annotation has the id of the state directory of the process that renews the lease. A node that is restarted finds
its own id there and goes on at once. Any other process waits, and sees whether the lease is still being renewed. A node
that ends empties the annotation, so that a process that takes its place need not wait.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog

from wasmlet.clock import Clock, either
from wasmlet.errors import ConfigError
from wasmlet.kube import History, errors, paths
from wasmlet.kube.client import JSON_PATCH, MERGE_PATCH, Client
from wasmlet.model.pod import Raw
from wasmlet.model.times import parse, rfc3339_micro
from wasmlet.node.registration import NodeRegistration

log = structlog.get_logger(__name__)

DURATION_SECONDS = 40
RENEW_SECONDS = 10.0
RETRY_SECONDS = 1.0
"""Between two tries, a little more or less, while the API server is away."""
PATIENCE_SECONDS = 3.0
"""How long an answer may take before another try is begun beside the first."""
SILENT_SECONDS = 6.0
"""Without an answer for this long the API server counts as away."""
DOUBTS, DOUBT_SECONDS = 10, 10.0
"""When another request fails, the lease is renewed early, to see whether the API server is away. So many early renewals
may follow each other at once, and then one in so many seconds: requests that always fail must not cost much."""
CLAIM_SECONDS = 15.0
"""How long somebody else's lease is watched: longer than a renewal takes."""
ANNOTATION = "wasmlet.dev/instance"
RELEASED = ""
"""The annotation of a lease whose node has ended by itself."""
RELEASE_SECONDS = 2.0
"""How long the end of the node waits for that."""


class LeaseKeeper:
    """Renews one lease until cancelled.

    Args:
        client: used by nothing else; its `recovery` is told whether the API server is away.
        instance: the id of this state directory, which no other one has.
        registration: says the UID of the Node, which owns the lease.
    """

    def __init__(
        self,
        client: Client,
        node_name: str,
        instance: str,
        registration: NodeRegistration,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._instance = instance
        self._name = node_name
        self._registration = registration
        self._clock = clock
        self._rng = rng
        self._recovery = client.recovery
        self._doubts, self._doubts_at = float(DOUBTS), clock.monotonic()
        self._put_off = 0.0
        """How many seconds the API server has asked to wait before the next try."""
        self._absent = False
        """`claim` has found no lease, so that the first renewal makes one."""
        self._renewed: float | None = None
        """When the lease was renewed before `run`, on the monotonic clock."""

    async def claim(self) -> None:
        """See that nobody else is this node.

        Raises:
            ConfigError: another process renews the lease.
        """
        found = await self._read()
        self._absent = found is None
        if found is None or _annotation(found) in (self._instance, RELEASED):
            return
        renewed = _renewed(found)
        if renewed is None or (self._clock.now() - renewed).total_seconds() > DURATION_SECONDS:
            return
        log.info("the node's lease is somebody's; seeing whether it is still renewed", node=self._name)
        until = self._clock.monotonic() + CLAIM_SECONDS
        while self._clock.monotonic() < until:
            await self._clock.sleep(CLAIM_SECONDS / 15)
            found = await self._read()
            if found is not None and _renewed(found) != renewed:
                raise ConfigError(
                    f"another process is node {self._name} already: it has renewed the node's lease just now; "
                    "stop it, or choose another name with --node-name"
                )

    async def _read(self) -> Raw | None:
        try:
            return await self._client.get(f"{paths.LEASES}/{self._name}")
        except errors.ObjectNotFound:
            return None

    async def run(self, history: History) -> None:
        """Renew every 10 s, and as soon as another request's failure makes it doubtful that the API server is there.

        Args:
            history: says whether the API server was restored from a backup. It is asked when the API server may have
                been away, and before anything is written: our own writes could raise the server's versions above those
                that we know, and so hide the restore.
        """
        renewed, self._renewed = self._renewed, None
        while True:
            # Counted from the time that is in the lease: a slow answer takes nothing from the lease's duration.
            due = (await self._until_renewed(history) if renewed is None else renewed) + RENEW_SECONDS
            renewed = None
            left = due - self._clock.monotonic()
            await either(self._clock, left, *([self._recovery.doubted] if self._may_doubt() else []))
            if self._clock.monotonic() < due:
                self._doubts -= 1

    def _may_doubt(self) -> bool:
        now = self._clock.monotonic()
        self._doubts = min(DOUBTS, self._doubts + (now - self._doubts_at) / DOUBT_SECONDS)
        self._doubts_at = now
        return self._doubts >= 1

    async def _until_renewed(self, history: History) -> float:
        """Start tries, also while earlier ones wait for an answer, until one succeeds; when that one was sent."""
        begun, answer = self._clock.monotonic(), asyncio.Event()
        tries: set[asyncio.Task[float | None]] = set()
        try:
            while True:
                answer.clear()
                tries.add(asyncio.create_task(self._try(answer, history)))
                await either(self._clock, RETRY_SECONDS if self._recovery.away else PATIENCE_SECONDS, answer)
                if self._recovery.away and answer.is_set():
                    await self._clock.sleep(max(self._put_off, RETRY_SECONDS * self._rng.uniform(0.7, 1.0)))
                ended = {one for one in tries if one.done()}
                tries -= ended
                if renewed := [began for one in ended if (began := one.result()) is not None]:
                    return max(renewed)
                if tries and self._clock.monotonic() - begun >= SILENT_SECONDS:
                    self._away("the API server does not answer", silent=True)
        finally:
            for one in tries:
                one.cancel()
            await asyncio.gather(*tries, return_exceptions=True)

    async def _try(self, answer: asyncio.Event, history: History) -> float | None:
        """Renew once. Returns when the renewal was sent, on the monotonic clock, or None if it failed."""
        began = self._clock.monotonic()
        try:
            if self._recovery.away or self._recovery.doubted.is_set():
                selector = {"fieldSelector": f"metadata.name={self._name}"}
                with suppress(errors.ApiError, TimeoutError):  # the lease is renewed whatever else fails
                    async with asyncio.timeout(RENEW_SECONDS):
                        await history.compare(self._client, paths.NODES, selector)
            renewed = self._clock.monotonic()
            await self.renew()
        except errors.ApiError as error:
            self._put_off = error.retry_after
            self._away(str(error))
            return None
        finally:
            answer.set()
        if self._recovery.away:
            log.info("the lease is renewed again")
        self._recovery.found(began)
        return renewed

    def _away(self, error: str, *, silent: bool = False) -> None:
        if not self._recovery.away:
            log.warning("the lease is not renewed, trying again each second", error=error)
        self._recovery.lost(silent=silent)

    async def begin(self) -> None:
        """Renew the lease before `run`, which goes on from here."""
        renewed = self._clock.monotonic()
        await self.renew()
        self._renewed = renewed

    async def renew(self) -> None:
        """Renew the lease once, making it if there is none."""
        absent, self._absent = self._absent, False
        spec: dict[str, Any] = {
            "holderIdentity": self._name,
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": rfc3339_micro(self._clock.now()),
        }
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self._registration.uid}
        metadata = {"name": self._name, "ownerReferences": [owner], "annotations": {ANNOTATION: self._instance}}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        if absent:
            with suppress(errors.AlreadyExists):  # somebody has made it since
                await self._client.create(paths.LEASES, lease)
                return
        try:
            await self._client.request(
                "PATCH",
                f"{paths.LEASES}/{self._name}",
                body={"metadata": metadata, "spec": spec},
                content_type=MERGE_PATCH,
                seconds=RENEW_SECONDS,
            )
        except errors.ObjectNotFound:
            await self._client.create(paths.LEASES, lease)

    async def release(self) -> None:
        """Say that the node has ended, unless somebody else has the lease by now. Nothing is raised where that fails.

        The lease itself stays as it is: pods go on, and the node counts as alive until it runs out.
        """
        at = f"/metadata/annotations/{ANNOTATION.replace('/', '~1')}"
        patch = [
            {"op": "test", "path": at, "value": self._instance},
            {"op": "replace", "path": at, "value": RELEASED},
        ]
        path = f"{paths.LEASES}/{self._name}"
        with suppress(errors.ApiError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._client.request("PATCH", path, body=patch, content_type=JSON_PATCH, seconds=RELEASE_SECONDS)


def _annotation(lease: Raw) -> str | None:
    found: str | None = (lease["metadata"].get("annotations") or {}).get(ANNOTATION)
    return found


def _renewed(lease: Raw) -> datetime | None:
    text = (lease.get("spec") or {}).get("renewTime")
    return parse(text) if text else None
