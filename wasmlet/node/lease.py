"""The node's lease: the heartbeat that tells the cluster that this node is alive.

40 s long, renewed every 10 s, held by the node's name, as a kubelet's is. It has a connection of its own, so that no
load on the others delays it: a lease that runs out makes the cluster move the pods elsewhere.
"""

from __future__ import annotations

from typing import Any

import structlog

from wasmlet.clock import Clock
from wasmlet.kube import errors, paths
from wasmlet.kube.client import MERGE_PATCH, Client
from wasmlet.model.times import rfc3339_micro
from wasmlet.node.registration import NodeRegistration

log = structlog.get_logger(__name__)

DURATION_SECONDS = 40
RENEW_SECONDS = 10.0
RETRY_SECONDS = 2.0


class LeaseKeeper:
    """Renews one lease until cancelled.

    Args:
        client: used by nothing else.
        registration: says the UID of the Node, which owns the lease.
    """

    def __init__(self, client: Client, node_name: str, registration: NodeRegistration, clock: Clock) -> None:
        self._client = client
        self._name = node_name
        self._registration = registration
        self._clock = clock

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
        metadata = {"name": self._name, "ownerReferences": [owner]}
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
