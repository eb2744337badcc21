"""kubectl port-forward reaches a port of the pod, as often as one likes, and says why where nothing listens."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.conformance.access.test_66_ports import fetched
from tests.conformance.harness import SECONDS, Kube


@asynccontextmanager
async def forwarded(kube: Kube, port: int) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """kubectl that forwards a port: the one of its own, and what else it says."""
    process = await asyncio.create_subprocess_exec(
        kube.machine.kubectl,
        *("--kubeconfig", str(kube.machine.plane.kubeconfig), "-n", kube.namespace, "port-forward", "p", f":{port}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            while not (found := re.search(rb"127\.0\.0\.1:(\d+) ->", line := await process.stdout.readline())):
                assert line, "kubectl ended"
        yield int(found[1]), process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def told(port: int, said: asyncio.StreamReader, what: str) -> None:
    """Return when kubectl has said this of a connection to its port."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    text = ""
    async with asyncio.timeout(SECONDS):
        while what not in text:
            line = await said.readline()
            assert line, text
            text += line.decode()
    writer.close()


async def test_a_port_of_the_pod(net: Kube) -> None:
    await net.serve()
    await net.logged("listening")
    async with forwarded(net, 8080) as (port, _):
        answers = await asyncio.gather(*(fetched("127.0.0.1", port, f"/{number}") for number in range(5)))
    assert all(answer.startswith("HTTP/1.1 200") for answer in answers)
    assert all(f"GET /{number} " in answer for number, answer in enumerate(answers))


async def test_nothing_listens(net: Kube) -> None:
    await net.serve()
    await net.logged("listening")
    async with forwarded(net, 8081) as (port, said):
        await told(port, said, "connection refused")


async def test_without_a_network(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    await kube.ready()
    async with forwarded(kube, 8080) as (port, said):
        await told(port, said, "has no network")
