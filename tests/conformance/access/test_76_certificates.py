"""A node has the cluster sign the certificate of its API, shows it as soon as it is signed, and asks again in time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from tests.conformance.conftest import Own
from tests.conformance.harness import SECONDS, Kube
from wasmlet.testing.clock import FakeClock

DAY = 24 * 3600.0
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


async def request_of(kube: Kube, known: set[str]) -> dict[str, Any]:
    """The node's next request for a serving certificate, after those that are known."""
    days = 0
    async with asyncio.timeout(SECONDS):
        while True:
            for item in (await kube.admin.get(REQUESTS))["items"]:
                ours = item["spec"]["username"] == f"system:node:{kube.node}"
                if ours and item["metadata"]["name"] not in known:
                    return item
            if known:  # on to the time of renewal, and no further: the next certificate has to be of use then
                days += 10
                kube.clock.advance(10 * DAY if days <= 330 else 60)


async def shown(kube: Kube) -> bytes:
    """The certificate that the node's API shows."""
    status = (await kube.node_object())["status"]
    port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    address = next(a["address"] for a in status["addresses"] if a["type"] == "InternalIP")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (address, port))
    return ssl.PEM_cert_to_DER_cert(pem)


async def verified(kube: Kube) -> bool:
    """Whether the cluster's CA vouches for the node's API."""
    status = (await kube.node_object())["status"]
    address = next(a["address"] for a in status["addresses"] if a["type"] == "InternalIP")
    context = ssl.create_default_context(cafile=str(kube.machine.plane.client_ca_file))

    def connect() -> bool:
        port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        try:
            with (
                socket.create_connection((address, port)) as plain,
                context.wrap_socket(plain, server_hostname=address),
            ):
                return True
        except ssl.SSLCertVerificationError:
            return False

    return await asyncio.to_thread(connect)


async def clear(kube: Kube) -> None:
    """Delete the node's requests: a cluster keeps them for an hour, and the next tests look for their own."""
    for item in (await kube.admin.get(REQUESTS))["items"]:
        if item["spec"]["username"] == f"system:node:{kube.node}":
            await kube.admin.delete(f"{REQUESTS}/{item['metadata']['name']}")


async def test_signed_and_renewed(own: Own) -> None:
    clock = FakeClock()
    async with own(node_clock=clock, serving_csr=True) as kube:
        kube.clock = clock
        assert not await verified(kube)
        first = await request_of(kube, set())
        assert first["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
        assert set(first["spec"]["usages"]) >= {"digital signature", "server auth"}
        await kube.kubectl("certificate", "approve", first["metadata"]["name"])
        async with asyncio.timeout(SECONDS):
            while not await verified(kube):
                clock.advance(1)
        before = await shown(kube)
        second = await request_of(kube, {first["metadata"]["name"]})
        await kube.kubectl("certificate", "approve", second["metadata"]["name"])
        async with asyncio.timeout(SECONDS):
            while await shown(kube) == before:
                clock.advance(1)
        await clear(kube)
