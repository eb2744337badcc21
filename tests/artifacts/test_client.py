"""How registries are spoken to: resume, retries, redirects, mirrors, credentials that stay where they belong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import ssl
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.artifacts.modules import descriptor, manifest, serve
from tests.artifacts.pulls import BLOB, MANIFEST, WASM, pull
from tests.artifacts.registries import Request, Scripted, reply, scripted
from tests.shared.authority import Authority
from wasmlet.artifacts import http
from wasmlet.artifacts.credentials import Keyring, auths_of
from wasmlet.artifacts.errors import Absent, ArtifactError, BadContent, Denied, Unavailable
from wasmlet.artifacts.hosts import RegistryConfig, endpoints, own_endpoint
from wasmlet.artifacts.http import Http
from wasmlet.artifacts.pull import Puller
from wasmlet.artifacts.references import parse
from wasmlet.artifacts.store import Store
from wasmlet.errors import ConfigError
from wasmlet.testing import FakeClock


def ranged(request: Request) -> bytes:
    """The first half, and whatever is asked for by range."""
    if (wanted := request.headers.get("range")) is None:
        return reply(WASM[:1500], length=len(WASM))
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    return reply(WASM[start:], status=206, Content_Range=f"bytes {start}-{len(WASM) - 1}/{len(WASM)}")


async def test_a_blob_goes_on_where_it_stopped(servers: tuple[Scripted, Scripted], store: Store) -> None:
    server, _ = servers
    server.answers[BLOB] = ranged
    image = f"{server.address}/app:v1"
    assert await pull(store, image, insecure_registries=(server.address,)) == WASM
    assert [request.headers.get("range") for request in server.asked if request.path == BLOB] == [None, "bytes=1500-"]


@pytest.mark.parametrize(
    "second",
    [
        reply(WASM),
        reply(WASM[10:], status=206, Content_Range=f"bytes 10-{len(WASM) - 1}/{len(WASM)}"),
        reply(b"", status=416),
    ],
    ids=["the whole", "another part", "no part"],
)
async def test_a_registry_that_knows_no_ranges(servers: tuple[Scripted, Scripted], store: Store, second: bytes) -> None:
    server, _ = servers
    answers = [reply(WASM[:1500], length=len(WASM)), second, reply(WASM)]
    server.answers[BLOB] = lambda request: answers.pop(0)
    assert await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,)) == WASM


async def test_busy_registries_are_asked_again_when_they_like(servers: tuple[Scripted, Scripted], store: Store) -> None:
    server, _ = servers
    clock, pauses = FakeClock(), list[float]()
    date = format_datetime(clock.now() + timedelta(seconds=40), usegmt=True)
    good = server.answers[MANIFEST]
    answers = [
        reply(b"", status=429, Retry_After="17"),
        reply(b"", status=503, Retry_After=date),
        reply(b"", status=500),
    ]
    server.answers[MANIFEST] = lambda request: answers.pop(0) if answers else good  # type: ignore[return-value]
    image = f"{server.address}/app:v1"
    assert await pull(store, image, clock=clock, pauses=pauses, insecure_registries=(server.address,)) == WASM
    assert pauses[0] == 17
    assert 20 <= pauses[1] <= 40
    assert 0 < pauses[2] < 5


async def test_a_registry_that_is_down_at_first_may_have_tls(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*Authority(tmp_path).certificate("127.0.0.1"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = RegistryConfig(insecure_registries=(f"127.0.0.1:{port}",))
    endpoint = own_endpoint(config, f"127.0.0.1:{port}")
    async with Http(config, FakeClock()) as http:
        with pytest.raises(Unavailable, match="Connection refused"):
            async with http.answer("GET", await http.base(endpoint), headers={}, authorization=None):
                pass
        async with scripted(context, port):
            assert (await http.base(endpoint)).scheme == "https"


async def test_a_registry_that_stays_busy(servers: tuple[Scripted, Scripted], store: Store) -> None:
    server, _ = servers
    said = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"later,\\u001b[31m please"}]}'
    server.answers[MANIFEST] = reply(said, status=429, Retry_After="9999999")
    with pytest.raises(
        Unavailable, match=r"answered 429 Too Many Requests for app/manifests/v1: later, \[31m"
    ) as error:
        await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))
    assert error.value.after == 60
    assert error.value.reason == "ErrImagePull"
    assert len(server.paths()) == 4


async def test_what_will_not_pass_is_not_tried_again(servers: tuple[Scripted, Scripted], store: Store) -> None:
    server, _ = servers
    server.answers[MANIFEST] = reply(b"", status=403)
    with pytest.raises(Denied, match="403"):
        await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))
    assert len(server.paths()) == 1


def wants_basic(answer: bytes, user: str = "me:secret") -> object:
    expected = "Basic " + base64.b64encode(user.encode()).decode()

    def decide(request: Request) -> bytes:
        if request.headers.get("authorization") == expected:
            return answer
        return reply(b"", status=401, WWW_Authenticate='Basic realm="r"')

    return decide


async def test_a_redirect_carries_no_credentials_to_another_host(
    servers: tuple[Scripted, Scripted], store: Store
) -> None:
    server, other = servers
    for path in (MANIFEST, BLOB):
        server.answers[path] = wants_basic(  # type: ignore[assignment]
            server.answers[path]
            if path == MANIFEST
            else reply(b"", status=307, Location=f"http://{other.address}/b?sig=1")
        )
    other.answers["/b"] = reply(WASM)
    keys = auths_of({server.address: {"username": "me", "password": "secret"}})
    assert await pull(store, f"{server.address}/app:v1", keys, insecure_registries=(server.address,)) == WASM
    (there,) = other.asked
    assert "authorization" not in there.headers
    assert [request for request in server.asked if "authorization" in request.headers]


async def test_a_redirect_that_fails_does_not_show_its_signature(
    servers: tuple[Scripted, Scripted], store: Store
) -> None:
    server, other = servers
    server.answers[BLOB] = reply(b"", status=302, Location=f"http://{other.address}/b?signature=hidden")
    with pytest.raises(Absent, match=f"{other.address} answered 404") as error:
        await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))
    assert "hidden" not in str(error.value)
    other.answers["/b"] = reply(b"", status=401, WWW_Authenticate=f'Bearer realm="http://{other.address}/steal"')
    with pytest.raises(Denied, match=f"{other.address} answered 401"):
        await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))
    assert other.paths() == ["/b?signature=hidden"] * 2


@pytest.mark.parametrize("repeated", ["secret", base64.b64encode(b"me:secret").decode(), "secret" * 100])
async def test_a_registry_that_repeats_a_credential_is_not_quoted(
    servers: tuple[Scripted, Scripted], store: Store, repeated: str
) -> None:
    """Neither in its message nor in its status line: whoever sees the pod's events need not know the credential."""
    server, _ = servers
    words = json.dumps({"errors": [{"message": f"{'you ' * 48}are {repeated}"}]}).encode()
    answer = reply(words, status=403).replace(b"Something", repeated.encode())
    server.answers[MANIFEST] = wants_basic(answer)  # type: ignore[assignment]
    keys = auths_of({server.address: {"username": "me", "password": "secret"}})
    with pytest.raises(Denied, match=r"answered 403 Forbidden for app/manifests/v1$"):
        await pull(store, f"{server.address}/app:v1", keys, insecure_registries=(server.address,))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (reply(b"", status=404).replace(b"Something", b"x" * 60_000), "answered 404 Not Found for"),
        (reply(b"[" * 16_000, status=404), "answered 404 Not Found for"),
        (reply(b"<html>", Content_Type="x" * 60_000), "expected a manifest, found x"),
        (reply(b"", status=302, Location=f"https://{'a.' * 30_000}x/"), "redirects to what is no address"),
        (reply(b"", status=401, WWW_Authenticate=f'Bearer realm="https://{"b" * 7000}/"'), "a token server that is no"),
        (b"HTTP/9 " + b"x" * 60_000 + b"\r\n\r\n", "illegal status line$"),
    ],
    ids=["status line", "nested", "type", "redirect", "realm", "no HTTP"],
)
async def test_what_a_registry_says_makes_no_long_error(
    servers: tuple[Scripted, Scripted], store: Store, answer: bytes, why: str
) -> None:
    server, _ = servers
    server.answers[MANIFEST] = answer
    with pytest.raises(ArtifactError, match=why) as error:
        await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))
    assert len(str(error.value)) < 500


async def test_a_body_in_very_many_small_pieces_is_refused(servers: tuple[Scripted, Scripted], store: Store) -> None:
    """To read them would hold up everything else that the node does; as many that are larger are read."""
    server, _ = servers
    head = b"HTTP/1.1 200 Something\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    good, image = server.answers[BLOB], f"{server.address}/app:v1"
    pieces = [WASM[at : at + 1] for at in range(len(WASM))]
    assert len(pieces) < 4096
    server.answers[BLOB] = head + b"".join(b"1\r\n%b\r\n" % piece for piece in pieces) + b"0\r\n\r\n"
    assert await pull(store, image, insecure_registries=(server.address,)) == WASM
    server.answers[BLOB], server.answers[MANIFEST] = good, head + b"1\r\n \r\n" * 100_000
    with pytest.raises(BadContent, match="sends its answer in pieces that are too small"):
        await pull(store, image, insecure_registries=(server.address,))


async def test_interim_answers_without_end_are_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.5)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]  # noqa: UP031
        mirror = (f"docker.io=http://{address}",)
        async with Puller(store, RegistryConfig(registry_mirrors=mirror), FakeClock()) as puller:
            endpoint = next(endpoints(RegistryConfig(registry_mirrors=mirror), parse("app:v1")))
            with pytest.raises(BadContent, match=r"has not begun to answer within 0.5 s"):
                await puller._resolve_at(endpoint, parse("app:v1"), Keyring(), files=False)


async def test_a_token_that_could_be_a_header_is_not_sent(servers: tuple[Scripted, Scripted], store: Store) -> None:
    server, other = servers
    server.answers[MANIFEST] = reply(b"", status=401, WWW_Authenticate=f'Bearer realm="http://{other.address}/t"')
    for body, why in (
        (b'{"token": "a\\r\\nEvil: b"}', "printable ASCII"),
        (b'{"token": 7}', "without a token"),
        (b"[]", "JSON that has a token"),
        (b"<html>", "JSON that has a token"),
        (b" " * 300_000, "more than the 262144 allowed"),
    ):
        other.answers["/t"] = reply(body)
        with pytest.raises(BadContent, match=why):
            await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))
    for realm, why in (("ftp://x/", "is no address"), ("", "is no address"), ("nowhere", "is no address")):
        server.answers[MANIFEST] = reply(b"", status=401, WWW_Authenticate=f'Bearer realm="{realm}"')
        with pytest.raises(BadContent, match=why):
            await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))
    server.answers[MANIFEST] = reply(b"", status=401, WWW_Authenticate="Negotiate")
    with pytest.raises(Denied, match="authentication by negotiate; expected Bearer or Basic"):
        await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))


async def test_mirrors_are_asked_first_with_credentials_of_their_own(
    servers: tuple[Scripted, Scripted], store: Store
) -> None:
    server, mirror = servers
    keys = auths_of({server.address: {"username": "me", "password": "secret"}})
    config = {
        "insecure_registries": (server.address,),
        "registry_mirrors": (f"{server.address}=http://{mirror.address}/p/",),
    }
    assert await pull(store, f"{server.address}/app:v1", keys, **config) == WASM
    assert [request.path for request in mirror.asked] == ["/p/v2/app/manifests/v1"]
    mirror.answers = {f"/p{path}": answer for path, answer in server.answers.items()}
    server.asked.clear()
    mirror.answers["/p/v2/app/manifests/v1"] = wants_basic(b"")  # type: ignore[assignment]
    assert await pull(store, f"{server.address}/app:v1", keys, **config) == WASM
    assert all("authorization" not in request.headers for request in mirror.asked)
    mirror.answers["/p/v2/app/manifests/v1"] = server.answers[MANIFEST]
    server.asked.clear()
    assert await pull(store, f"{server.address}/app:v1", keys, **config) == WASM
    assert server.asked == []
    del mirror.answers["/p/v2/app/manifests/v1"], server.answers[MANIFEST]
    why = rf"{server.address}/app:v1: {server.address} answered 404 .*; its mirror {mirror.address}/p: .* answered 404 "
    with pytest.raises(Absent, match=why):
        await pull(store, f"{server.address}/app:v1", keys, **config)


async def test_cookies_are_not_kept(servers: tuple[Scripted, Scripted], store: Store) -> None:
    server, _ = servers
    answer = server.answers[MANIFEST]
    assert isinstance(answer, bytes)
    server.answers[MANIFEST] = answer.replace(b"Connection:", b"Set-Cookie: sid=1; Path=/\r\nConnection:")
    assert await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,)) == WASM
    assert len(server.asked) == 2
    assert all("cookie" not in request.headers for request in server.asked)


async def test_one_download_however_many_ask(servers: tuple[Scripted, Scripted], store: Store) -> None:
    server, _ = servers
    other = manifest(descriptor(WASM, "application/wasm"), annotations={"a": "b"})
    serve(server, other, WASM, tag="v2")
    config = RegistryConfig(insecure_registries=(server.address,))
    async with Puller(store, config, FakeClock()) as puller:
        images = [parse(f"{server.address}/app:{tag}") for tag in ("v1", "v2") * 10]
        pulled = await asyncio.gather(*(puller.pull(image, Keyring()) for image in images))
    for one in pulled:
        assert one.lease.path.read_bytes() == WASM
        one.lease.close()
    assert server.paths().count(BLOB) == 1
    assert server.paths().count(MANIFEST) == 10


async def test_a_proxy_in_the_environment_is_used_but_not_for_this_machine(
    servers: tuple[Scripted, Scripted], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = servers
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    assert await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,)) == WASM
    assert proxy.asked == []
    mirrors = ("r.example=http://far.example",)
    with pytest.raises(ArtifactError):
        await pull(store, "r.example/app:v1", registry_mirrors=mirrors, insecure_registries=("r.example",))
    assert "http://far.example/v2/app/manifests/v1" in proxy.paths()
    monkeypatch.setenv("HTTP_PROXY", "gopher://nowhere")
    with pytest.raises(ConfigError, match="proxy in the environment"):
        await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))


@pytest.mark.parametrize(
    "mirror", ["x", "x=", "=http://y", "x=ftp://y", "x=http://", "x=http://u@y", "x=http://y?q", "x=http://y:z"]
)
def test_mirrors_that_are_none(mirror: str) -> None:
    with pytest.raises(ConfigError, match="expected REGISTRY="):
        RegistryConfig(registry_mirrors=(mirror,))
