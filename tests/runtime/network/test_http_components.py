"""Components that serve HTTP, as pods: unmodified, confined, reached at their pods' addresses."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, web

from tests.guests import components
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.network.servers import certificate, http_server
from tests.shared.authority import Authority
from wasmlet.errors import Refused
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey

NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
PORTS = [{"name": "http", "containerPort": 8080}]
LATE = ClientTimeout(20)


@pytest.fixture
def image() -> str:
    """The component whose paths say what it does."""
    return f"file://{components.web()}"


def serving(image: str, annotations: dict[str, str] | None = None, **more: Any) -> Pod:
    pod = pod_of(image=image, **{"ports": PORTS, **more})
    return Pod({**pod.raw, "metadata": {**pod.raw["metadata"], "annotations": annotations or {}}})


async def started(runtime: Runtime, pod: Pod) -> tuple[PodKey, str]:
    """The pod, and where it serves."""
    key = await runtime.create(pod, NODE)
    await runtime.running(key)
    (ip,) = (await runtime.provider.pod_status(key)).pod_ips
    return key, f"http://{ip}:8080"


async def test_it_serves_at_the_first_port_and_sees_the_request(networked: Runtime, image: str) -> None:
    env = [{"name": "A", "value": "b"}]
    key, url = await started(networked, serving(image, env=env))
    async with ClientSession(timeout=LATE) as client:
        async with client.get(f"{url}/hello") as answer:
            assert (answer.status, await answer.text()) == (200, "hello, component\n")
            assert answer.headers["Content-Type"] == "text/plain"
        headers = {"X-Twice": "1", "Authorization": "secret"}
        async with client.put(f"{url}/request?x=%20y", headers=headers) as answer:
            lines = (await answer.text()).splitlines()
        assert lines[:2] == ["method 3", f"authority {url.removeprefix('http://')}"]
        assert "x-twice: 1" in lines
        assert "authorization: secret" in lines
        assert not any(line.startswith(("host:", "connection:")) for line in lines)
        async with client.get(f"{url}/environment") as answer:
            variables = (await answer.text()).splitlines()
        assert {"A=b", "PORT=8080", "HOSTNAME=web"} <= set(variables)
        async with client.get(f"{url}/status?418") as answer:
            assert (answer.status, answer.reason) == (418, "I'm a Teapot")
        async with client.head(f"{url}/hello") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with client.get(f"{url}/log") as answer:
            assert answer.status == 200
    assert await networked.logged(key, b"a line of the guest\n")


async def test_what_serving_takes_beside_the_guest_is_not_taken_from_its_limit(networked: Runtime) -> None:
    """The guest of this component has 384 KiB; its engine, its front and their connections take some MiB."""
    small = Path(__file__).parents[3] / "examples" / "http" / "http.wasm"
    key, url = await started(networked, serving(f"file://{small}", resources={"limits": {"memory": "1Mi"}}))
    async with ClientSession(timeout=LATE) as client:

        async def several() -> None:
            for _ in range(20):
                async with client.get(f"{url}/hello") as answer:
                    assert answer.status == 200, await networked.log(key)

        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(several())
    assert (await networked.running(key)).restart_count == 0


async def test_bodies_stream_both_ways(networked: Runtime, image: str) -> None:
    _, url = await started(networked, serving(image))
    parts: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def body() -> AsyncGenerator[bytes, None]:
        while (part := await parts.get()) is not None:
            yield part

    async with ClientSession(timeout=LATE) as client:
        parts.put_nowait(b"first")
        async with client.post(f"{url}/echo", data=body()) as answer:
            assert await answer.content.read(5) == b"first"  # before the request has come to its end
            parts.put_nowait(b"second")
            assert await answer.content.read(6) == b"second"
            parts.put_nowait(None)
            assert await answer.content.read() == b""
        much = bytes(range(256)) * 8192
        async with client.post(f"{url}/echo", data=io.BytesIO(much)) as answer:
            assert await answer.read() == much
        async with client.get(f"{url}/much?500") as answer:
            assert len(await answer.read()) == 500 * 4096


async def test_an_instance_per_request_and_one_that_is_reused(networked: Runtime, image: str) -> None:
    _, fresh = await started(networked, serving(image))
    async with ClientSession(timeout=LATE) as client:
        for _ in range(3):
            async with client.get(f"{fresh}/total") as answer:
                assert await answer.text() == "1"
        await networked.provider.delete_pod(PodKey("default", "web", "uid-of-web"), 0)
        _, reused = await started(networked, serving(image, {"wasmlet.dev/http-instances": "reuse"}))
        for count in range(1, 4):
            async with client.get(f"{reused}/total") as answer:
                assert await answer.text() == str(count)
        async with client.get(f"{reused}/trap") as answer:
            assert answer.status == 500
        async with client.get(f"{reused}/total") as answer:  # another instance
            assert await answer.text() == "1"


async def test_a_handler_that_fails_or_never_ends_is_no_end_of_the_container(networked: Runtime, image: str) -> None:
    key, url = await started(networked, serving(image, {"wasmlet.dev/http-timeout": "1"}))
    async with ClientSession(timeout=LATE) as client:
        for path, status in (("spin", 504), ("sleep?60000", 504), ("trap", 500), ("none", 500), ("hold", 500)):
            async with client.get(f"{url}/{path}") as answer:
                assert answer.status == status, path
        async with client.get(f"{url}/hello") as answer:
            assert answer.status == 200
    text = (await networked.log(key)).decode()
    assert "GET /spin: the handler has taken longer than 1 s" in text
    assert "unreachable" in text
    assert "it has ended without a response" in text
    status = await networked.running(key)
    assert status.restart_count == 0


async def test_many_at_a_time_and_no_more_than_it_may(networked: Runtime, image: str) -> None:
    _, url = await started(networked, serving(image, {"wasmlet.dev/http-concurrency": "2"}))
    loop = asyncio.get_running_loop()

    async def one(client: ClientSession) -> float:
        async with client.get(f"{url}/sleep?1000") as answer:
            assert answer.status == 200
        return loop.time()

    async with ClientSession(timeout=LATE) as client:
        began = loop.time()
        ended = sorted(await asyncio.gather(*(one(client) for _ in range(4))))
    assert ended[1] - ended[0] < 1  # one after the other takes longer, however fast or slow the machine is
    assert ended[3] - began >= 2


async def test_it_calls_what_its_pod_may_dial(networked: Runtime, image: str, there: str, tmp_path: Path) -> None:
    seen: list[tuple[str, str, bytes, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, await request.read(), request.headers.get("x-from")))
        return web.Response(status=203, body=b"x" * 200_000)

    async with http_server(answer, ip=there) as port, http_server(answer, certificate(tmp_path), there) as secure:
        annotations = {"wasmlet.dev/egress": f"{there}:{port}, {there}:{secure}, {there}:1"}
        key, url = await started(networked, serving(image, annotations))
        async with ClientSession(timeout=LATE) as client:
            async with client.post(f"{url}/fetch/http/{there}:{port}/a?b=c", data=b"sent") as got:
                assert (got.status, len(await got.read())) == (203, 200_000)
            assert seen == [("POST", "/a?b=c", b"sent", "guest")]
            refused, denied, certificate_error = "error 6", "error 15", "error 13"
            for where, says in (
                (f"https/{there}:{secure}/", certificate_error),
                (f"http/{there}:1/", refused),
                (f"http/{there}:2/", denied),
                ("http/example.com/", denied),
            ):
                async with client.get(f"{url}/fetch/{where}") as got:
                    assert (got.status, await got.text()) == (502, says), await networked.log(key)
    assert len(seen) == 1
    await networked.event(key, "EgressDenied")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that the system trusts, for nodes that start after this."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


async def test_it_calls_a_server_whose_authority_the_system_trusts(
    authority: Authority, networked: Runtime, image: str, there: str
) -> None:
    """And not one whose certificate of it is for another name."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="x" * 200_000)

    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2)]
    for context, address in zip(contexts, (there, "192.0.2.1"), strict=True):
        context.load_cert_chain(*authority.certificate(address))
    async with http_server(answer, contexts[0], there) as good, http_server(answer, contexts[1], there) as elsewhere:
        annotations = {"wasmlet.dev/egress": f"{there}:{good}, {there}:{elsewhere}"}
        key, url = await started(networked, serving(image, annotations))
        async with ClientSession(timeout=LATE) as client:
            async with client.get(f"{url}/fetch/https/{there}:{good}/") as got:
                assert (got.status, len(await got.read())) == (200, 200_000), await networked.log(key)
            async with client.get(f"{url}/fetch/https/{there}:{elsewhere}/") as got:
                assert (got.status, await got.text()) == (502, "error 13")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("http-instances", "sometimes"),
        ("http-concurrency", "0"),
        ("http-concurrency", "x"),
        ("http-timeout", "-1"),
        ("http-access-log", "yes"),
    ],
)
async def test_annotations_that_say_nothing(networked: Runtime, image: str, name: str, text: str) -> None:
    with pytest.raises(Refused, match=rf"annotations\[wasmlet.dev/{name}\]"):
        await networked.create(serving(image, {f"wasmlet.dev/{name}": text}), NODE)


async def test_dense_pods_have_no_components(networked: Runtime, image: str) -> None:
    key = await networked.create(serving(image), attrs.evolve(NODE, runtime_handler="wasmlet-dense"))
    waiting = await networked.waiting(key, "CreateContainerError")
    assert "component" in waiting.message


async def refused(url: str) -> None:
    """Return once nobody listens there."""
    host, _, port = url.removeprefix("http://").partition(":")
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.01)


async def test_a_request_in_flight_is_answered_within_the_grace_period(networked: Runtime, image: str) -> None:
    key, url = await started(networked, serving(image))
    more = asyncio.Event()

    async def body() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await more.wait()
        yield b"second"

    async with ClientSession(timeout=LATE) as client, client.post(f"{url}/echo", data=body()) as answer:
        assert await answer.content.read(5) == b"first"
        async with asyncio.TaskGroup() as tasks:
            deleted = tasks.create_task(networked.provider.delete_pod(key, 30))
            await refused(url)
            more.set()
            assert await answer.content.read() == b"second"
        final = deleted.result()
    assert final is not None
    assert final.containers[0].state.exit_code == 143


async def test_a_request_in_flight_ends_with_the_grace_period(networked: Runtime, image: str) -> None:
    key, url = await started(networked, serving(image))
    async with ClientSession(timeout=LATE) as client:
        answer = await client.get(f"{url}/much?1000000")  # nobody reads it
        final = await networked.provider.delete_pod(key, 1)
        with pytest.raises(ClientError):
            await answer.read()
        answer.close()
    assert final is not None
    assert final.containers[0].state.exit_code == 137


def unsent(ip: str) -> int:
    """Bytes that the system keeps for clients of this server."""
    address = f"{int.from_bytes(socket.inet_aton(ip), sys.byteorder):08X}:{8080:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(int(row[4].partition(":")[0], 16) for row in rows if row[1] == address)


async def test_a_client_that_reads_nothing_has_little_of_the_systems_memory(networked: Runtime, image: str) -> None:
    _, url = await started(networked, serving(image))
    ip = url.removeprefix("http://").partition(":")[0]
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        client.connect((ip, 8080))
        client.sendall(b"GET /much?5000 HTTP/1.1\r\nHost: x\r\n\r\n")
        found, before = 0, -1
        while not 0 < found == before:  # as much as there will be
            await asyncio.sleep(0.5)
            found, before = unsent(ip), found
    assert found < 512 * 1024


async def test_requests_are_in_the_log_where_the_pod_says_so(networked: Runtime, image: str) -> None:
    key, url = await started(networked, serving(image, {"wasmlet.dev/http-access-log": "true"}))
    async with ClientSession(timeout=LATE) as client:
        for path in ("hello?token=secret", "status?404", "trap"):
            async with client.get(f"{url}/{path}"):
                pass
    text = await networked.logged(key, b"GET /trap 500 ")
    assert b"wasmlet: GET /hello 200 0." in text
    assert b"wasmlet: GET /status 404 0." in text
    assert b"secret" not in text


async def test_requests_are_not_in_the_log_else(networked: Runtime, image: str) -> None:
    key, url = await started(networked, serving(image))
    async with ClientSession(timeout=LATE) as client:
        for path in ("hello", "status?404", "log"):
            async with client.get(f"{url}/{path}"):
                pass
    assert await networked.logged(key, b"a line of the guest\n") == b"a line of the guest\n"


async def test_probes_over_http_reach_the_handler(networked: Runtime, image: str) -> None:
    """What a component answers decides whether it is ready, and whether it goes on."""
    often = {"periodSeconds": 1, "failureThreshold": 1}

    def asks(path: str) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": "http"}, **often}

    key = await networked.create(serving(image, startupProbe=asks("/hello"), readinessProbe=asks("/status?204")), NODE)
    await networked.main(key, lambda status: status.started and status.ready)
    assert (await networked.running(key)).restart_count == 0
    await networked.provider.delete_pod(key, 0)
    key = await networked.create(serving(image, readinessProbe=asks("/trap")), NODE)
    await networked.event(key, "Unhealthy", "500")
    assert not (await networked.running(key)).ready
    await networked.provider.delete_pod(key, 0)
    key = await networked.create(serving(image, restart="Always", livenessProbe=asks("/status?503")), NODE)
    await networked.event(key, "Unhealthy", "503")
    await networked.main(key, lambda status: status.restart_count > 0)
