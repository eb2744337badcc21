"""The node's lease: the heartbeat that tells the cluster that this node is alive.

40 s long, renewed every 10 s, held by the node's name, as a kubelet's is. It has a connection of its own, so that no
load on the others delays it: a lease that runs out makes the cluster move the pods elsewhere.

The lease is also how a second process with the same node name is found out. Its holder cannot tell, being the node's
name, so an annotation names the state directory that renews it: a restart knows its own and goes on at once, anybody
else waits to see whether the lease is still being renewed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog

from wasmlet.clock import Clock
from wasmlet.errors import ConfigError
from wasmlet.kube import errors, paths
from wasmlet.kube.client import MERGE_PATCH, Client
from wasmlet.model.pod import Raw
from wasmlet.model.times import parse, rfc3339_micro
from wasmlet.node.registration import NodeRegistration

log = structlog.get_logger(__name__)

DURATION_SECONDS = 40
RENEW_SECONDS = 10.0
RETRY_SECONDS = 2.0
CLAIM_SECONDS = 15.0
"""How long somebody else's lease is watched: longer than a renewal takes."""
ANNOTATION = "wasmlet.dev/instance"


class LeaseKeeper:
    """Renews one lease until cancelled.

    Args:
        client: used by nothing else.
        instance: tells this state directory from all others.
        registration: says the UID of the Node, which owns the lease.
    """

    def __init__(
        self, client: Client, node_name: str, instance: str, registration: NodeRegistration, clock: Clock
    ) -> None:
        self._client = client
        self._instance = instance
        self._name = node_name
        self._registration = registration
        self._clock = clock

    async def claim(self) -> None:
        """See that nobody else is this node.

        Raises:
            ConfigError: another process renews the lease.
        """
        found = await self._read()
        if found is None or _annotation(found) == self._instance:
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

    async def run(self) -> None:
        while True:
            try:
                await self.renew()
                pause = RENEW_SECONDS
            except errors.ApiError as error:
                log.warning("the lease is not renewed, trying again", error=str(error))
                pause = RETRY_SECONDS
            await self._clock.sleep(pause)

    async def renew(self) -> None:
        """Renew the lease once, making it if there is none."""
        spec: dict[str, Any] = {
            "holderIdentity": self._name,
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": rfc3339_micro(self._clock.now()),
        }
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self._registration.uid}
        metadata = {"name": self._name, "ownerReferences": [owner], "annotations": {ANNOTATION: self._instance}}
        try:
            await self._client.request(
                "PATCH",
                f"{paths.LEASES}/{self._name}",
                body={"metadata": metadata, "spec": spec},
                content_type=MERGE_PATCH,
                seconds=RENEW_SECONDS,
            )
        except errors.ObjectNotFound:
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            await self._client.create(paths.LEASES, lease)


def _annotation(lease: Raw) -> str | None:
    found: str | None = (lease["metadata"].get("annotations") or {}).get(ANNOTATION)
    return found


def _renewed(lease: Raw) -> datetime | None:
    text = (lease.get("spec") or {}).get("renewTime")
    return parse(text) if text else None
