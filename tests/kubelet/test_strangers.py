"""What somebody sends who may do nothing here: it is refused in the right words, and the node's log stays as it is."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from tests.kubelet.harness import Kubelet, View, client_context, kubelet
from wasmlet.kubelet import auth
from wasmlet.kubelet.reviews import COMPLAINT_SECONDS
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.testing import FakeClock
from wasmlet.testing.reference import ReferenceProvider

POD = Pod(
    {
        "metadata": {"namespace": "default", "name": "p", "uid": "u"},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
)
EXEC = b"/exec/default/p/c?command=x&output=1"
SPDY = b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Kubelet]:
    provider = ReferenceProvider()
    await provider.create_pod(POD, Inputs())
    async with kubelet(tmp_path, provider=provider, header_seconds=5) as node:
        node.pods.views.append(View(POD, await provider.pod_status(POD.key)))
        yield node


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Python would print to standard error."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: found.append(raised.exc_value))
    return found


async def exchange(node: Kubelet, request: bytes, who: str | None) -> bytes:
    """What is answered to bytes, up to the end of the connection or of the answer's head."""
    context = node.client(who)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port, ssl=context)
    try:
        async with asyncio.timeout(30):
            writer.write(request)
            with suppress(ConnectionError, ssl.SSLError):
                try:
                    return await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError as error:
                    return error.partial
            return b""
    finally:
        writer.transport.abort()


def get(path: bytes = b"/pods", headers: bytes = b"", method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"


TOKENS = [b"\xff", b"caf\xc3\xa9", b"a\x80b", b"\xed\xa0\x80", b"x" * 30_000, b"a b", b"\x01"]
MALFORMED = {
    "bytes in the path": get(b"/\xff\xfe"),
    "percent": get(b"/%ff%fe%00%0a"),
    "bad percent": get(b"/%zz%"),
    "surrogate": get(b"/%ed%a0%80"),
    "query": get(b"/pods?a=\xff&%ff=%ff"),
    "logs": get(b"/containerLogs/\xff/%ff/c?tailLines=\xff"),
    "exec": get(b"/exec/%ff/\xff/c?command=\xff"),
    "absolute": get(b"http://\xff/pods"),
    "bad port": get(b"http://x:99999999/pods"),
    "ipv6": get(b"http://[::1/pods"),
    "method": get(method=b"G\xffT"),
    "long method": get(method=b"G" * 50_000),
    "long path": get(b"/" + b"x" * 100_000),
    "long header": get(headers=b"X: " + b"x" * 100_000 + b"\r\n"),
    "many headers": get(headers=b"".join(b"X%d: y\r\n" % i for i in range(5000))),
    "header name": get(headers=b"\xff: y\r\n"),
    "no colon": get(headers=b"nonsense\r\n"),
    "nul": get(headers=b"X: a\x00b\r\n"),
    "folded": get(headers=b"X: a\r\n b\r\n"),
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "nonsense": b"\x00\x01\x02\r\n\r\n",
    "second is nonsense": get() + b"\x00\x01\r\n\r\n",
    "length": get(headers=b"Content-Length: many\r\n"),
    "negative length": get(headers=b"Content-Length: -1\r\n"),
    "huge length": get(headers=b"Content-Length: 99999999999999999999\r\n"),
    "two lengths": get(headers=b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    "chunks": get(headers=b"Transfer-Encoding: chunked\r\n", method=b"POST") + b"zz\r\n",
    "encoding": get(headers=b"Transfer-Encoding: \xff\r\n", method=b"POST"),
    "compressed": get(headers=b"Content-Encoding: gzip\r\nContent-Length: 3\r\n", method=b"POST") + b"abc",
    "expect": get(headers=b"Expect: \xff\r\n"),
    "cookie": get(headers=b"Cookie: \xff=\xff; a\r\n"),
    "host": b"GET / HTTP/1.1\r\nHost: \xff\xff:x\r\n\r\n",
    "accept": get(b"/\xff", headers=b"Accept: text/html\xff\r\n"),
    "upgrade": get(EXEC, b"Connection: Upgrade\r\nUpgrade: \xff\r\n"),
    "connection": get(EXEC, b"Connection: \xff\r\nUpgrade: websocket\r\n"),
    "authorization": get(headers=b"Authorization: \xff\xff\xff\r\n"),
    "basic": get(headers=b"Authorization: Basic \xff\r\n"),
}


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: repr(token[:8]))
async def test_a_token_of_any_bytes_is_nobodys(node: Kubelet, caplog: pytest.LogCaptureFixture, token: bytes) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await exchange(node, get(headers=b"Authorization: Bearer " + token + b"\r\n"), None)
    assert answer.split()[1] in ((b"400", b"401") if token == b"\x01" else (b"401",))
    assert not lines
    assert not caplog.records


@pytest.mark.parametrize("who", [None, "stranger"])
async def test_no_request_of_a_stranger_is_logged(
    node: Kubelet,
    unraisable: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    who: str | None,
) -> None:
    """Whatever is sent: the answer is one of the client's errors, or none."""
    monkeypatch.setattr(auth, "COMPLAINT_SECONDS", 3600)  # a slow machine may take longer than the real one
    with structlog.testing.capture_logs() as lines:
        for name, request in MALFORMED.items():
            answer = await exchange(node, request, who)
            assert not answer or answer.split()[1][:1] == b"4", (name, answer)
    told = [line for line in lines if line["log_level"] != "debug"]
    assert [line["event"] for line in told] == ([] if who is None else ["forbidden"])
    assert not caplog.records
    assert not unraisable


@pytest.mark.parametrize(
    "headers",
    [
        SPDY + b"X-Stream-Protocol-Version: v4.channel.k8s.io\xff\r\n",
        SPDY + b"X-Stream-Protocol-Version: \xc3\xa9\r\n",
        b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\xff\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n",
        WEBSOCKET + b"Sec-WebSocket-Key: \xff\r\n",
        WEBSOCKET + b"Sec-WebSocket-Key: \xc3\xa9\r\n",
        WEBSOCKET + b"Sec-WebSocket-Key: AAAA\r\n",
        WEBSOCKET + KEY + b"Sec-WebSocket-Protocol: \xff\r\n",
        WEBSOCKET + KEY + b"Sec-WebSocket-Protocol: v5.channel.k8s.io, \xc3\xa9\r\n",
        WEBSOCKET + KEY + b"Sec-WebSocket-Extensions: \xff\r\n",
        WEBSOCKET.replace(b"13", b"\xff") + KEY,
        WEBSOCKET.replace(b"13", b"99") + KEY,
    ],
)
@pytest.mark.parametrize("path", [EXEC, b"/attach/default/p/c?output=1", b"/portForward/default/p?port=1"])
async def test_an_upgrade_with_any_bytes_is_a_bad_request(
    node: Kubelet, caplog: pytest.LogCaptureFixture, path: bytes, headers: bytes
) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await exchange(node, get(path, headers), "root")
    assert answer.split()[1] == b"400"
    assert not lines
    assert not caplog.records


async def test_a_server_name_of_any_bytes_is_not_logged(
    node: Kubelet, unraisable: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    context = client_context(node.directory, None)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="aaaaaaaa")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read().replace(b"aaaaaaaa", b"\xff" * 8)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(hello)
    async with asyncio.timeout(30):
        assert await reader.read(1)
    writer.transport.abort()
    assert not unraisable
    assert not caplog.records


@asynccontextmanager
async def connected(node: Kubelet) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port, ssl=node.client(None))
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.transport.abort()


async def refused(reader: asyncio.StreamReader) -> None:
    assert b" 401 " in await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len("Unauthorized"))


@pytest.mark.parametrize("together", [False, True], ids=["after the answer", "in one piece"])
@pytest.mark.parametrize("first", [get(), get(b"/healthz", b"Authorization: Bearer x\r\n")], ids=["nobody", "token"])
async def test_a_later_head_that_stalls_ends_the_connection(tmp_path: Path, together: bool, first: bytes) -> None:
    second = b"GET /healthz HTTP/1.1\r\nX-Slow: "
    async with kubelet(tmp_path, header_seconds=2) as node, connected(node) as (reader, writer):
        writer.write(first + second if together else first)
        await refused(reader)
        if not together:
            for byte in second:
                writer.write(bytes([byte]))
        with suppress(ConnectionError, ssl.SSLError):
            assert await reader.read() == b""


async def test_a_connection_may_be_idle_between_requests(tmp_path: Path) -> None:
    async with kubelet(tmp_path, header_seconds=2) as node, connected(node) as (reader, writer):
        for _ in range(2):
            writer.write(get())
            await refused(reader)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5):
                    await reader.read(1)


async def test_one_who_is_refused_again_and_again_is_told_of_now_and_then(tmp_path: Path) -> None:
    clock = FakeClock()
    async with kubelet(tmp_path, clock=clock) as node:
        with structlog.testing.capture_logs() as lines:
            for _ in range(2):
                clock.advance(COMPLAINT_SECONDS)
                for _ in range(25):
                    assert (await node("/pods", who="stranger"))[0] == 403
    assert len([line for line in lines if line["event"] == "forbidden"]) == 2
