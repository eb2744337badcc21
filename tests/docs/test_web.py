"""Pods that serve, from a Deployment to an HTTP answer: `web.yaml` and `http.yaml`, with kubectl and in the demo."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.cli.demo.harness import wasmlet
from tests.docs.test_examples import Kubectl, kube
from tests.docs.test_examples import insecure as insecure
from tests.guests import components
from wasmlet.cli.demo.manifests import of_module

__all__ = ["kube"]

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 60.0
_HELLO = re.compile(r"^Hello from (\S+): (\S*)\n$")


async def get(url: str) -> tuple[str, str]:
    """The pod that answers, and the path that it was asked for."""
    async with aiohttp.ClientSession(trust_env=False) as session, session.get(url) as answer:
        assert answer.status == 200
        found = _HELLO.match(await answer.text())
    assert found
    return found[1], found[2]


async def endpoints(kube: Kubectl, service: str = "web") -> dict[str, str]:
    """The URLs of the pods that are ready to serve, by their names."""
    chosen = f"kubernetes.io/service-name={service}"
    listed = json.loads(await kube("get", "endpointslices", "-l", chosen, "-o", "json"))
    return {
        endpoint["targetRef"]["name"]: f"http://{endpoint['addresses'][0]}:{item['ports'][0]['port']}"
        for item in listed["items"]
        for endpoint in item["endpoints"]
        if endpoint["conditions"]["ready"]
    }


@asynccontextmanager
async def forwarded(kubectl: Path, *command: str) -> AsyncIterator[int]:
    """The port of this machine that `kubectl port-forward` leads to a pod from, given all but its ports."""
    process = await asyncio.create_subprocess_exec(kubectl, *command, ":80", stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"127\.0\.0\.1:(\d+) -> 8080", line)
        assert found, line
        yield int(found[1])
    finally:
        process.terminate()
        await process.wait()


async def test_web(kube: Kubectl) -> None:
    """The example does what its comment says."""
    await kube("apply", "-f", "examples/web.yaml")
    assert "successfully rolled out" in await kube("rollout", "status", "deployment/web", f"--timeout={SECONDS:g}s")
    urls = await endpoints(kube)
    assert len(urls) == 2
    for name, url in urls.items():
        assert await get(f"{url}/hello?x=1") == (name, "/hello?x=1")
    assert "GET /hello?x=1" in await kube("logs", "-l", "app=web", "--prefix")

    await kube("scale", "deployment/web", "--replicas=3")
    await kube("rollout", "status", "deployment/web", f"--timeout={SECONDS:g}s")
    assert len(await endpoints(kube)) == 3
    await kube("rollout", "restart", "deployment/web")
    await kube("rollout", "status", "deployment/web", f"--timeout={SECONDS:g}s")
    after = await endpoints(kube)
    assert len(after) == 3
    assert not urls.keys() & after.keys()
    for name, url in after.items():
        assert await get(f"{url}/") == (name, "/")

    await kube("delete", "-f", "examples/web.yaml")
    await kube("wait", "pod", "-l", "app=web", "--for=delete", f"--timeout={SECONDS:g}s")
    assert await endpoints(kube) == {}
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(f"{url}/")


async def test_a_pod_that_sends_nothing_and_a_request_in_pieces(kube: Kubectl) -> None:
    """Clients that are slow do not keep others waiting."""
    await kube("apply", "-f", "examples/web.yaml")
    await kube("rollout", "status", "deployment/web", f"--timeout={SECONDS:g}s")
    name, url = next(iter((await endpoints(kube)).items()))
    host, port = url.removeprefix("http://").split(":")
    silent = [await asyncio.open_connection(host, port) for _ in range(40)]  # more than the server has places
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"HEAD /pieces HT")
        await writer.drain()
        assert await get(f"{url}/") == (name, "/")
        writer.write(b"TP/1.1\r\nHost: web\r\n\r\n")
        async with asyncio.timeout(SECONDS):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n")
        assert await get(f"{url}/") == (name, "/")
    finally:
        for _, each in [*silent, (reader, writer)]:
            each.close()


async def test_the_demo_shows_an_answer_and_how_to_get_one(kubectl: Path) -> None:
    async with wasmlet("demo", "--port", "0", "--keep", "examples/web.yaml") as demo:
        kubeconfig = (await demo.line(r"^  export KUBECONFIG=(\S+)$"))[1]
        await demo.line(r"^deployment/web 2 of 2 pods are available$")
        url = (await demo.line(r"^service/web +answers at (http://127\S+/)$"))[1]
        await demo.line(r"^  \| HTTP 200 OK$")
        await demo.line(r"^  \| Hello from web-\S+: /$")
        assert (await demo.line(r"^  curl (\S+)$"))[1] == url
        command = (await demo.line(r"^  kubectl (port-forward service/web) 8080:80$"))[1]
        await demo.line("up until Ctrl-C")
        assert (await get(url))[0].startswith("web-")
        async with forwarded(kubectl, "--kubeconfig", kubeconfig, *command.split()) as port:
            assert (await get(f"http://127.0.0.1:{port}/forwarded"))[1] == "/forwarded"
        demo.process.terminate()
        code, _ = await demo.end()
    assert code == 0


async def test_the_demo_of_a_component() -> None:
    """`examples/http/http.yaml`: a greeting, and bodies that come back whole."""
    async with wasmlet("demo", "--port", "0", "--keep", "examples/http/http.yaml") as demo:
        await demo.line(r"^deployment/http 2 of 2 pods are available$")
        url = (await demo.line(r"^service/http +answers at (http://127\S+/)$"))[1]
        await demo.line(r"^  \| HTTP 200 OK$")
        await demo.line(r"^  \| Hello from http-\S+: /$")
        assert (await demo.line(r"^  curl (\S+)$"))[1] == url
        await demo.line("up until Ctrl-C")
        name, path = await get(f"{url}hello?x=1")
        assert name.startswith("http-")
        assert path == "/hello?x=1"
        body = bytes(range(256)) * 2048  # more than the component has memory for
        async with aiohttp.ClientSession(trust_env=False) as session:
            async with session.post(url, data=body) as answer:
                assert (answer.status, await answer.read()) == (200, body)
            async with session.head(url) as answer:
                assert (answer.status, await answer.read()) == (200, b"")
            async with session.delete(url) as answer:
                assert (answer.status, await answer.text()) == (405, "GET or POST\n")
        demo.process.terminate()
        code, _ = await demo.end()
    assert code == 0


@pytest.mark.timeout(300)  # a compiler takes as long as others let it
async def test_a_component_in_python(kube: Kubectl) -> None:
    """`examples/http/python`: built by componentize-py, reached by probes and a Service, and asks another component."""
    http = (EXAMPLES / "http" / "http.yaml").read_text().replace("file://./", f"file://{EXAMPLES}/http/")
    await kube("apply", "-f", "-", stdin=http)
    await kube("rollout", "status", "deployment/http", f"--timeout={SECONDS:g}s")
    other = next(iter((await endpoints(kube, "http")).values())).removeprefix("http://")
    manifest = (EXAMPLES / "http" / "python" / "python.yaml").read_text()
    manifest = manifest.replace("file://./app.wasm", f"file://{components.python()}").replace("example.com:80", other)
    await kube("apply", "-f", "-", stdin=manifest)
    while "successfully rolled out" not in await kube(
        "rollout", "status", "deployment/python", "--timeout=50s", code=None
    ):
        assert "Error" not in await kube("get", "pods", "-l", "app=python")  # it is compiled, which may take its time
    ((name, url),) = (await endpoints(kube, "python")).items()
    assert await get(f"{url}/hello?x=1") == (name, "/hello?x=1")
    service = ("--kubeconfig", str(kube.plane.kubeconfig), "port-forward", "service/python")
    async with forwarded(kube.program, *service) as port:
        assert await get(f"http://127.0.0.1:{port}/forwarded") == (name, "/forwarded")
    async with aiohttp.ClientSession(trust_env=False) as session:
        async with session.post(url, data=bytes(range(256)) * 1024) as answer:
            assert (answer.status, await answer.read()) == (200, bytes(range(256)) * 1024)
        async with session.get(f"{url}/fetch/{other}/asked") as answer:
            assert answer.status == 200
            assert re.fullmatch(r"Hello from http-\S+: /asked\n", await answer.text())
        async with session.get(f"{url}/fetch/192.0.2.1:80/") as answer:
            assert (answer.status, await answer.text()) == (502, "192.0.2.1:80: HttpRequestDenied\n")
    assert await kube("get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].restartCount}") == "0"
    assert "EgressDenied" in await kube("get", "events", "--field-selector", f"involvedObject.name={name}")


async def test_a_module_that_serves() -> None:
    async with wasmlet("demo", "--port", "0", "--serve", "9090", "examples/web/web.wasm") as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert re.search(r"^service/web +answers at http://127\S+:9090/$", output, re.MULTILINE)
    assert "  | Hello from web: /\n" in output


async def test_a_component_that_serves_needs_no_port() -> None:
    async with wasmlet("demo", "--port", "0", "examples/http/http.wasm") as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert re.search(r"^service/http +answers at http://127\S+:8080/$", output, re.MULTILINE)
    assert "  | Hello from http: /\n" in output


async def test_whom_a_module_dials_is_said_to_the_demo() -> None:
    (pod,) = of_module(components.net(), ("zone",), egress="example.com:443")
    assert pod["metadata"]["annotations"] == {"wasmlet.dev/egress": "example.com:443"}
    async with wasmlet("demo", "--port", "0", "--egress", "no grant", str(components.net()), "zone") as demo:
        code, output = await demo.end()
    assert code == 1
    assert "metadata.annotations[wasmlet.dev/egress]" in output
    async with wasmlet("demo", "--port", "0", "--egress", "*", "examples/hello.yaml") as demo:
        code, output = await demo.end()
    assert code == 1
    assert "--egress is for a module" in output


async def test_a_module_that_does_not_serve_is_told_of() -> None:
    async with wasmlet("demo", "--port", "0", "--serve", "9090", "examples/hello/hello.wasm") as demo:
        code, output = await demo.end()
    assert code == 1
    assert "Error: service/hello: its pods have ended, and none was ready to serve" in output
