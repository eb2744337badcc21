"""Registries for tests: Debian's docker-registry as a process, a token server, and one that does as it is told."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from wasmlet.controlplane.certificates.pki import Pair

USER, PASSWORD = "alice", "wonderland"
HTPASSWD = "alice:$2y$05$abcdefghijklmnopqrstuuA0vov2GDneHB3.8.cv9UF9g.RdvScIW"
SERVICE = "registry of the tests"


@asynccontextmanager
async def registry(program: Path, directory: Path, **config: Any) -> AsyncIterator[str]:
    """A docker-registry on loopback, until the context ends; gives HOST:PORT.

    Args:
        config: more of its configuration; `http` is merged.
    """
    http = {"addr": "127.0.0.1:0", "secret": "s", **config.pop("http", {})}
    storage = {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}}
    file = _written(
        directory / "config.yml", json.dumps({"version": "0.1", "storage": storage, "http": http, **config})
    )
    process = await asyncio.create_subprocess_exec(
        program, "serve", file, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, limit=1 << 20
    )
    assert process.stderr is not None
    said = []

    async def read() -> str:
        assert process.stderr is not None
        async for line in process.stderr:
            said.append(line.decode())
            if found := re.search(r"listening on (127\.0\.0\.1:\d+)", said[-1]):
                return found[1]
        raise AssertionError("".join(said))

    async def drain() -> None:
        assert process.stderr is not None
        while await process.stderr.read(65536):
            pass

    try:
        async with asyncio.timeout(60):
            address = await read()
        reader = asyncio.create_task(drain())
        try:
            yield address
        finally:
            reader.cancel()
            await asyncio.wait([reader])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _written(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def basic(directory: Path) -> dict[str, Any]:
    """Configuration of a registry that wants USER and PASSWORD."""
    file = _written(directory / "htpasswd", f"{HTPASSWD}\n")
    return {"auth": {"htpasswd": {"realm": "r", "path": str(file)}}}


def tls(directory: Path, pair: Pair) -> dict[str, Any]:
    """Configuration of a registry with a certificate."""
    certificate, key = _written(directory / "tls.crt", pair.certificate), _written(directory / "tls.key", pair.key)
    return {"http": {"tls": {"certificate": str(certificate), "key": str(key)}}}


@attrs.define
class TokenServer:
    """Signs tokens as a registry's token server does; `asked` has each query, and who asked."""

    pair: Pair
    url: str = ""
    lifetime: int = 300
    public: bool = False
    asked: list[tuple[str, str]] = attrs.field(factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        form = dict(await request.post()) if request.method == "POST" else dict(request.query)
        header = request.headers.get("Authorization", "")
        user = "anonymous"
        if form.get("refresh_token") == PASSWORD:
            user = "by refresh token"
        elif header:
            user = base64.b64decode(header.removeprefix("Basic ")).decode()
        self.asked.append((str(form.get("scope")), user))
        if not self.public and user not in (f"{USER}:{PASSWORD}", "by refresh token"):
            return web.json_response({"errors": [{"code": "DENIED", "message": "go away"}]}, status=401)
        return web.json_response({"token": self._token(str(form["scope"])), "expires_in": self.lifetime})

    def config(self, bundle: Path) -> dict[str, Any]:
        """Configuration of a registry that sends its clients here."""
        return {
            "auth": {"token": {"realm": self.url, "service": SERVICE, "issuer": "tests", "rootcertbundle": str(bundle)}}
        }

    def _token(self, scope: str) -> str:
        kind, name, actions = scope.split(":")
        now = int(time.time())
        certificate = x509.load_pem_x509_certificate(self.pair.certificate)
        der = certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": "tests", "sub": "someone", "aud": SERVICE, "exp": now + 300, "nbf": now - 60, "iat": now, "jti": "1",
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }  # fmt: skip
        text = ".".join(_b64(json.dumps(part).encode()) for part in (head, claims))
        key = serialization.load_pem_private_key(self.pair.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@asynccontextmanager
async def token_server(pair: Pair) -> AsyncIterator[TokenServer]:
    """A token server on loopback."""
    server = TokenServer(pair)
    app = web.Application()
    app.router.add_route("*", "/token", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    try:
        yield server
    finally:
        await runner.cleanup()


@attrs.frozen
class Request:
    """What was asked of a `Scripted` server; header names in small letters."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


Answer = Callable[[Request], bytes]


@attrs.define
class Scripted:
    """An HTTP server whose answers a test writes byte by byte; each closes the connection."""

    answers: dict[str, Answer | bytes] = attrs.field(factory=dict)
    asked: list[Request] = attrs.field(factory=list)
    address: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            if first == b"\x16":  # TLS, which servers of plain HTTP do not answer
                return
            lines = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:]) if k}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Request(method, path, headers, body)
            self.asked.append(request)
            answer = self.answers.get(path.partition("?")[0], reply(b"", status=404))
            writer.write(answer(request) if callable(answer) else answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def paths(self) -> list[str]:
        return [request.path for request in self.asked]


def reply(body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> bytes:
    """An answer; `length` states another one than the body has."""
    lines = [f"HTTP/1.1 {status} Something", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode() + body


@asynccontextmanager
async def scripted(context: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Scripted]:
    """A `Scripted` server on loopback."""
    server = Scripted()
    listening = await asyncio.start_server(server.handle, "127.0.0.1", port, ssl=context)
    server.address = "127.0.0.1:%d" % listening.sockets[0].getsockname()[1]  # noqa: UP031
    async with listening:
        yield server
