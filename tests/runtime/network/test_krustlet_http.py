"""Modules that ask over HTTP by `wasi_experimental_http`, as confined pods of both classes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.guests import build
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.network.servers import certificate, http_server
from tests.runtime.network.test_pods import annotated
from tests.runtime.network.test_servers import CLASSES
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey


@pytest.fixture(scope="session")
def krustlet(compile_guest: Callable[..., None]) -> str:
    """The guest as an image; its arguments say what it does."""
    return f"file://{build('krustlet', compile_guest)}"


async def run(runtime: Runtime, inputs: Inputs, image: str, *args: object, egress: str = "") -> PodKey:
    pod = pod_of(*map(str, args), image=image)
    return await runtime.create(annotated(pod, **({"wasmlet_dev__egress": egress} if egress else {})), inputs)


async def said(runtime: Runtime, key: PodKey) -> list[str]:
    assert (await runtime.ended(key)).exit_code == 0
    return (await runtime.output(key)).decode().splitlines()


async def answer(request: web.Request) -> web.StreamResponse:
    if request.path == "/much":
        return web.Response(body=b"x" * 100_000)
    body = await request.read()
    if request.path == "/size":
        return web.Response(text=f"{len(body)} {set(body) == {ord('x')}}")
    if request.path == "/broken":
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"hello")
        assert request.transport is not None
        request.transport.close()
        return response
    said = f"{request.method} {request.path_qs} {request.headers.get('X-Mine', '-')} {body.decode()}"
    return web.Response(status=203, text=said, headers={"X-Answer": "yes"})


@CLASSES
async def test_requests(networked: Runtime, krustlet: str, inputs: Inputs, there: str) -> None:
    async with http_server(answer, ip=there) as port:
        url = f"http://{there}:{port}"
        words = ("get", f"{url}/a?b=%20c#d", "send", "PUT", f"{url}/x", "x-mine: 1\ncontent-type:text/plain", "body")
        words += ("get", url, "get", f"{url}/much", "upload", f"{url}/size", "1000000", "get", f"{url}/broken")
        key = await run(networked, inputs, krustlet, *words, egress=f"{there}/32:{port}")
        lines = await said(networked, key)
    assert lines[:3] == ["203 yes GET /a?b=%20c - ", "203 yes PUT /x 1 body", "203 yes GET / - "]
    assert lines[3] == "200 " + "x" * 100_000
    assert lines[4:] == ["200 1000000 True", "200 [11]"]


@CLASSES
async def test_fields(networked: Runtime, krustlet: str, inputs: Inputs, there: str) -> None:
    async with http_server(answer, ip=there) as port:
        key = await run(networked, inputs, krustlet, "fields", f"http://{there}:{port}/", egress=f"{there}/32:{port}")
        lines = await said(networked, key)
    assert (lines[0], lines[-1]) == ("4", "5 4")  # too small a buffer; no such field, and again too small a one
    assert {"x-answer:yes", "content-type:text/plain; charset=utf-8"} <= set(lines)


@CLASSES
async def test_what_was_not_granted(networked: Runtime, krustlet: str, inputs: Inputs, there: str) -> None:
    async with http_server(answer, ip=there) as port:
        url = f"http://{there}:{port}/"
        key = await run(networked, inputs, krustlet, "get", url, "get", url, egress="127.255.0.1/32:1")
        assert await said(networked, key) == ["error 7", "error 7"]
        await networked.event(key, "EgressDenied", there)
        await networked.provider.delete_pod(key, 0)
        key = await run(networked, inputs, krustlet, "get", f"http://{there}:1/", egress="*")
        assert await said(networked, key) == ["error 11"]


@CLASSES
async def test_a_server_that_nobody_vouches_for(
    networked: Runtime, krustlet: str, inputs: Inputs, there: str, tmp_path: Path
) -> None:
    """Its certificate is verified, in a process that reads no file any more."""
    async with http_server(answer, certificate(tmp_path), there) as port:
        key = await run(networked, inputs, krustlet, "get", f"https://{there}:{port}/", egress=f"{there}/32:{port}")
        assert await said(networked, key) == ["error 11"]


@CLASSES
async def test_what_is_wrong(networked: Runtime, krustlet: str, inputs: Inputs, there: str) -> None:
    async with http_server(answer, ip=there) as port:
        url = f"http://{there}:{port}/"
        key = await run(networked, inputs, krustlet, "wrong", "keep", url, "100", egress=f"{there}/32:{port}")
        lines = await said(networked, key)
    assert lines == ["1 1 1 0 4 4 3 3 8 9 9 9 10 10 10 10 6", "13"]


@CLASSES
async def test_one_that_waits_can_be_ended(networked: Runtime, krustlet: str, inputs: Inputs, there: str) -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    async def never(request: web.Request) -> web.Response:
        asked.set()
        await over.wait()  # the server waits for its answers when it ends, up to a minute
        return web.Response()

    async with http_server(never, ip=there) as port:
        key = await run(networked, inputs, krustlet, "get", f"http://{there}:{port}/", egress="*")
        async with asyncio.timeout(30):
            await asked.wait()
        final = await networked.provider.delete_pod(key, 30)
        over.set()
    assert final is not None
    assert final.containers[0].state.exit_code == 143


async def test_a_node_without_a_network_for_pods(runtime: Runtime, krustlet: str) -> None:
    for handler in ("wasmlet", "wasmlet-dense"):
        pod = pod_of("get", "http://127.0.0.1/", image=krustlet, name=handler)
        key = await runtime.create(pod, Inputs(runtime_handler=handler))
        assert await said(runtime, key) == ["error 7"]
