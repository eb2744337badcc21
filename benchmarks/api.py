"""A bare client of the API server for benchmarks: requests and a watch, with none of the cost that is measured.

`wasmlet.kube` is used for credentials only. `cluster` says which API server, `burst` does the asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from benchmarks.processes import BenchmarkFailed
from wasmlet.kube import Identity

JSON = "application/json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
TRIES = 8

Raw = dict[str, Any]


class Api:
    """A connection pool to one API server; `opened` makes one."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def call(self, method: str, path: str, body: Any = None, kind: str = JSON, *, accept: int = 0) -> Raw:
        """Send a request and return the answer; one that the server delays or fails at (429, 5xx) is repeated.

        Args:
            accept: an error status (400 or more) that is accepted; {} is returned for it.

        Raises:
            BenchmarkFailed: the server refuses, or fails again and again.
        """
        data = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"Content-Type": kind}
        for attempt in range(TRIES):
            async with self._session.request(method, self._server + path, data=data, headers=headers) as answer:
                text = await answer.read()
                if answer.status < 400:
                    decoded: Raw = orjson.loads(text)
                    return decoded
                if answer.status == accept:
                    return {}
                if answer.status != 429 and answer.status < 500:
                    break
                await asyncio.sleep(float(answer.headers.get("Retry-After", 0.05 * 2**attempt)))
        raise BenchmarkFailed(f"{method} {path} was answered {answer.status}: {text[:300].decode(errors='replace')}")

    async def watch(self, path: str, version: str, query: str = "") -> AsyncGenerator[tuple[str, Raw], None]:
        """The changes since that version, without end: a watch that the server ends is resumed.

        Args:
            query: of which objects, as it stands in a URL.
        """
        while True:
            parameters = f"watch=1&allowWatchBookmarks=true&resourceVersion={version}&{query}".rstrip("&")
            async with self._session.get(f"{self._server}{path}?{parameters}") as answer:
                if answer.status >= 400:
                    raise BenchmarkFailed(f"watch of {path} was answered {answer.status}: {await answer.text()}")
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = orjson.loads(line)
                        if event["type"] == "ERROR":
                            raise BenchmarkFailed(f"watch of {path}: {event['object'].get('message')}")
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]


@asynccontextmanager
async def opened(identity: Identity) -> AsyncGenerator[Api, None]:
    """An `Api` with that identity."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=identity.ssl_context or True, limit=0),
        headers={**await identity.headers(), "Accept": JSON},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
        read_bufsize=2**20,
    ) as session:
        yield Api(session, identity.server)
