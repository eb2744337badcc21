"""What the tools of JavaScript, Go and Rust make of the examples serves and calls in pods, unmodified and confined."""

from __future__ import annotations

import asyncio
import contextlib

import attrs
import pytest
from aiohttp import ClientSession, ClientTimeout, web

from tests.guests import languages
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.network.servers import http_server
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.model.status import Running

NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
LATE = ClientTimeout(60)
COMPILING = 600
"""Seconds: an engine for JavaScript is compiled for half a minute, and more where others work."""


def serving(language: str, grant: str = "") -> Pod:
    asks = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 10}
    pod = pod_of(image=f"file://{languages.built(language)}", ports=[{"containerPort": 8080}], readinessProbe=asks)
    annotations = {"wasmlet.dev/egress": grant} if grant else {}
    return Pod({**pod.raw, "metadata": {**pod.raw["metadata"], "annotations": annotations}})


async def started(runtime: Runtime, pod: Pod, inputs: Inputs = NODE) -> str:
    """Where it serves, once it does."""
    await runtime.provider.create_pod(pod, inputs)
    async with asyncio.timeout(COMPILING):
        while True:
            status = await runtime.provider.pod_status(pod.key)
            (main,) = status.containers
            if isinstance(main.state, Running) and main.ready:
                return f"http://{status.pod_ips[0]}:8080"
            await asyncio.sleep(0.1)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", ["javascript", "go", "rust"])
async def test_it_serves(networked: Runtime, there: str, language: str) -> None:
    """And calls whom its pod may dial, in JavaScript."""
    much = bytes(range(256)) * 1000

    async def answered(request: web.Request) -> web.Response:
        return web.Response(status=203, text=f"you asked for {request.path_qs}")

    async with http_server(answered, ip=there) as port, ClientSession(timeout=LATE) as client:
        url = await started(networked, serving(language, f"{there}:{port}"))
        for turn in range(3):
            async with client.get(f"{url}/x?y={turn}") as answer:
                assert answer.status == 200
                assert (await answer.text()).lower() == f"hello from {language}: /x?y={turn}\n"
        async with client.post(url, data=much) as answer:
            assert (answer.status, await answer.read()) == (200, much)
        if language == "javascript":
            async with client.get(f"{url}/fetch/{there}:{port}/a?b") as answer:
                assert (answer.status, await answer.text()) == (203, "you asked for /a?b")
            async with client.get(f"{url}/fetch/{there}:1/") as answer:
                assert answer.status == 502


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("language", "handler"),
    [(language, handler) for language in ("go", "rust") for handler in ("wasmlet", "wasmlet-dense")],
)
async def test_a_module_serves_at_the_listener_that_it_is_given(
    networked: Runtime, language: str, handler: str
) -> None:
    """By `net.FileListener` of Go and `TcpListener::from_raw_fd` of Rust, as programs have them for any system.

    Two of them are side by side, in one process where they are dense: what one is asked for, and its end, is its own.
    """
    asks = {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 10}
    image = f"file://{languages.listener(language)}"
    pods = [
        pod_of(name=name, image=image, ports=[{"containerPort": 8080}], readinessProbe=asks) for name in ("one", "two")
    ]
    inputs = attrs.evolve(NODE, runtime_handler=handler)
    one, two = [await started(networked, pod, inputs) for pod in pods]
    async with ClientSession(timeout=LATE) as client:

        async def asked(url: str, turn: int, body: bytes = b"") -> None:
            async with client.post(f"{url}/x?y={turn}", data=body) as answer:
                assert answer.status == 200
                assert (await answer.text()).lower() == f"hello from {language}: /x?y={turn} {len(body)}\n"

        for turn in range(20):
            await asked(one, turn)
        if language == "go":  # it reads bodies, and works on several connections at once
            async with asyncio.TaskGroup() as group:
                for turn in range(20):
                    for url in (one, two):
                        group.create_task(asked(url, turn, bytes(turn * 50_000)))
        host = one.removeprefix("http://").split(":")[0]
        reader, writer = await asyncio.open_connection(host, 8080)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun")
        await writer.drain()
        await networked.provider.delete_pod(pods[0].key, 0)
        with contextlib.suppress(ConnectionResetError):
            assert not await reader.read()
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, 8080)
        await asked(two, 0)
