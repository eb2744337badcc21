"""A node's HTTPS API on loopback with real TLS, over an API server that answers reviews as a test says."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from aiohttp import web

from tests.kube.server import serving
from wasmlet.clock import SystemClock
from wasmlet.controlplane.certificates.pki import Authority, Pair
from wasmlet.kubelet.auth import Guard
from wasmlet.kubelet.reviews import Reviews
from wasmlet.kubelet.server import KubeletServer, NodeFacts
from wasmlet.kubelet.sessions import Timeouts
from wasmlet.kubelet.tls import ServerTls, self_signed
from wasmlet.model.pod import Pod, Raw
from wasmlet.model.status import PodStatus
from wasmlet.provider import Provider
from wasmlet.testing import FakeClock
from wasmlet.testing.reference import ReferenceProvider

NODE = "n1"


@attrs.define
class View:
    """A pod as the node's API sees it."""

    pod: Pod
    status: PodStatus | None = None

    @property
    def shown(self) -> Raw:
        return self.pod.raw


@attrs.define
class Pods:
    """The node's pods."""

    views: list[View] = attrs.field(factory=list)

    def find(self, namespace: str, name: str, uid: str | None = None) -> View | None:
        for view in self.views:
            pod = view.pod
            if (pod.namespace, pod.name) == (namespace, name) and uid in (None, pod.uid):
                return view
        return None

    def all(self) -> Sequence[View]:
        return self.views


@attrs.define
class Reviewer:
    """The API server's side of reviews."""

    tokens: dict[str, Any] = attrs.field(factory=dict)
    """Token to `status.user`."""
    allowed: set[tuple[str, str, str]] = attrs.field(factory=set)
    """User, verb and subresource that may; `("root", "*", "*")` is one who may do all."""
    asked: Counter[str] = attrs.field(factory=Counter)
    specs: list[Raw] = attrs.field(factory=list)
    gate: asyncio.Event | None = None
    """Answers wait for this."""
    status: int = 201
    waiting: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        spec = body["spec"]
        self.asked[body["kind"]] += 1
        self.specs.append(spec)
        self.waiting.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.status != 201:
            quoted = f"no: {spec}"  # as servers do that quote what they cannot read
            return web.json_response({"kind": "Status", "code": self.status, "message": quoted}, status=self.status)
        return web.json_response(body | {"status": self._status(body["kind"], spec)}, status=201)

    def _status(self, kind: str, spec: Raw) -> Raw:
        if kind == "TokenReview":
            user = self.tokens.get(spec["token"])
            return {"authenticated": True, "user": user} if user else {"authenticated": False, "error": "unknown"}
        what = spec["resourceAttributes"]
        assert (what["resource"], what["name"]) == ("nodes", NODE)
        user = spec["user"]
        return {"allowed": bool({(user, what["verb"], what["subresource"]), (user, "*", "*")} & self.allowed)}


@attrs.define
class Kubelet:
    """What a test has in hand."""

    server: KubeletServer
    reviewer: Reviewer
    authority: Authority
    directory: Path
    pods: Pods
    provider: Any
    clock: Any
    tls: ServerTls
    session: aiohttp.ClientSession

    async def __call__(
        self, path: str, *, who: str | None = "root", token: str | None = None, method: str = "GET", **more: Any
    ) -> tuple[int, str]:
        """Status and text of an answer, asked for by the owner of a certificate, of a token, or by nobody.

        Args:
            who: the certificate's common name, perhaps with `/group`s behind it.
        """
        headers = more.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        client = self.client(None if token else who)
        url = f"https://127.0.0.1:{self.server.port}{path}"
        async with self.session.request(method, url, ssl=client, headers=headers, **more) as answer:
            return answer.status, await answer.text()

    def client(self, who: str | None, authority: Authority | None = None) -> ssl.SSLContext:
        """TLS of a client; the node's certificate is not looked at, as by an API server."""
        pair = None
        if who is not None:
            name, *groups = who.split("/")
            pair = (authority or self.authority).client(name, groups)
        return client_context(self.directory, pair)


def client_context(directory: Path, pair: Pair | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if pair is not None:
        file = directory / "client.pem"
        file.write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(file)
    return context


@asynccontextmanager
async def kubelet(
    directory: Path,
    *,
    provider: Provider | None = None,
    clock: FakeClock | None = None,
    review_seconds: float = 20.0,
    header_seconds: float = 20.0,
    **facts: Any,
) -> AsyncIterator[Kubelet]:
    """The API of node n1, of which the user root may do everything."""
    reviewer = Reviewer(allowed={("root", "*", "*")})
    authority = Authority("clients", datetime.now(UTC))
    ca = directory / "ca.crt"
    ca.write_bytes(authority.pem)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(serving(reviewer.answer, directory))
        time = clock or SystemClock()
        pods, runs = Pods(), provider or ReferenceProvider()
        tls = ServerTls(ca)
        tls.show(self_signed(NODE, "127.0.0.1", time.now()))
        server = KubeletServer(
            pods,
            runs,
            Guard(NODE, Reviews(client, time, seconds=review_seconds), time),
            NodeFacts(NODE, lambda: b"", capacity=lambda: {"cpu": "4"}, **facts),
            time,
            timeouts=Timeouts(head=header_seconds),
        )
        await server.start("127.0.0.1", 0, tls.context)
        stack.push_async_callback(server.stop)
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        yield Kubelet(server, reviewer, authority, directory, pods, runs, time, tls, session)
