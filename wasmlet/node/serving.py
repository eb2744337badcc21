"""The certificate that the node's HTTPS API shows, signed by the cluster.

The node begins with a self-signed certificate, which an API server that verifies kubelets does not accept. It asks the
cluster for a signed one, as a kubelet with `serverTLSBootstrap` does. The signer is kubernetes.io/kubelet-serving,
unless `--serving-signer` names another. Somebody has to approve the request: no cluster does that by itself, because
only an administrator knows to whom an address belongs. Until then an event on the Node says why `kubectl logs` may
fail. The certificate is kept in the state directory, and renewed before it expires.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from wasmlet.kube import Client
from wasmlet.kube.certificates import CertificateKeeper
from wasmlet.kube.keys import Pair, Wanted
from wasmlet.node.config import NodeConfig
from wasmlet.node.registration import NodeRegistration
from wasmlet.node.services import NodeServices

log = structlog.get_logger(__name__)


class ServingCertificate:
    """Asks for the certificate, shows it, renews it.

    Args:
        directory: the node's state directory.
        show: makes the API use a key and certificate.
    """

    def __init__(
        self,
        services: NodeServices,
        config: NodeConfig,
        directory: Path,
        registration: NodeRegistration,
        show: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._client = services.client
        self._name = config.node_name
        self._registration = registration
        self._events = services.events
        self._show = show
        file = directory / "pki" / "serving.pem"
        self._keeper = CertificateKeeper(
            file, config.serving_signer, self._wanted, services.clock, services.rng, pending=self._say_pending
        )

    async def load(self) -> None:
        """Show the certificate that an earlier start has got, where there is one."""
        if (pair := await self._keeper.load()) is not None:
            await self._show(pair.pem)

    async def run(self) -> None:
        """Have a signed certificate for as long as the node runs. The node must be registered."""

        @asynccontextmanager
        async def requester() -> AsyncGenerator[Client, None]:
            yield self._client

        async def installed(pair: Pair) -> None:
            await self._show(pair.pem)
            log.info("the node's API has a new serving certificate", until=pair.not_after.isoformat())

        await self._keeper.keep(requester, installed)

    def _wanted(self) -> Wanted:
        # What approves requests looks for the node's name, though the name may not be among the Node's addresses.
        dns, ips = {self._name}, set()
        for item in self._registration.addresses:
            try:
                ips.add(str(ipaddress.ip_address(item["address"])))
            except ValueError:
                dns.add(item["address"])
        return Wanted(f"system:node:{self._name}", ("system:nodes",), frozenset(dns), frozenset(ips))

    def _say_pending(self, name: str, seconds: float) -> None:
        approve = f"kubectl certificate approve {name}"
        message = (
            "the serving certificate is self-signed until its request is approved; kubectl logs and exec fail until "
            f"then where the API server verifies kubelets (--kubelet-certificate-authority): {approve}"
        )
        log.warning(message, seconds=round(seconds))
        node = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self._registration.uid}
        self._events.record(node, "ServingCertificatePending", message, "Warning")
