"""What stands for a host that agents join, and an agent that joins it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web
from wasmlet_agent.join.joining import JoinConfig, Joining
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import Failure
from wasmlet_agent.protocol.joining import JoinAnswer, JoinRequest, hash_of

TOKEN = "abcd.0123456789abcdef0123"


class FarHost:
    """What stands for a host: it takes what it is told to take."""

    def __init__(self) -> None:
        self.joins: list[JoinRequest] = []
        self.keys: dict[str, str] = {}
        self.dials: list[str] = []
        self.status = 0
        """What links are answered with instead."""
        self.refusal: tuple[int, bytes] | None = None
        self.lose = False
        """The answer to the next request to join is lost."""
        self.authorities = b""
        self.close_at_once = False
        self.sockets: list[web.WebSocketResponse] = []
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/join", self._join)
        app.router.add_get("/v1/link/{name}", self._link)
        app.router.add_get("/v1/authorities", self._authorities)
        return app

    async def _authorities(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        half = len(self.authorities) // 2
        for part in (self.authorities[:half], self.authorities[half:]):  # as a proxy may pass it on
            await answer.write(part)
            await asyncio.sleep(0.1)
        return answer

    async def _join(self, request: web.Request) -> web.Response:
        body = decode(JoinRequest, await request.read())
        self.joins.append(body)
        if self.refusal is not None:
            status, told = self.refusal
            return web.Response(status=status, body=told)
        if body.token != TOKEN:
            return web.Response(status=401, body=encode(Failure("Unauthorized", "no such token")))
        self.keys[body.name] = body.key
        if self.lose and request.transport is not None:
            self.lose = False
            request.transport.abort()
        return web.Response(body=encode(JoinAnswer(body.name)))

    async def _link(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.dials.append(name)
        if self.status:
            return web.Response(status=self.status)
        if self.keys.get(name) != hash_of(request.headers["Authorization"].removeprefix("Bearer ")):
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        if not self.close_at_once:
            await socket.receive()
        await socket.close()
        self.sockets.remove(socket)
        return socket


def joining(far: FarHost, directory: Path, **settings: Any) -> Joining:
    given = {"node_name": "edge-1", "token": TOKEN, "state_dir": directory, **settings}
    return Joining(JoinConfig(**given), far.url, directory)
