"""An actor that asks its host for whatever it is told to, as tests have it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
from aiohttp import ClientSession

EGRESS = "wasmlet.dev/egress"
ALL = ("http_server", "logging", "extras", "keyvalue", "messaging", "blobstore")


class Asker:
    """Asks an actor, which asks its host."""

    def __init__(self, client: ClientSession, url: str) -> None:
        self._client, self._url = client, url

    async def __call__(self, capability: str, operation: str, binding: str = "default", **message: Any) -> Any:
        """What the host answers; a text where it refuses."""
        path = f"{self._url}/{binding}/{capability}/{operation}"
        async with self._client.post(path, data=msgpack.packb(message)) as answer:
            data = await answer.read()
            if answer.status != 200:
                return data.decode()
            return msgpack.unpackb(data) if data else None

    async def told(self) -> Any:
        """The last message that the actor was told; None for none."""
        async with self._client.get(f"{self._url}/told") as answer:
            data = await answer.read()
            return msgpack.unpackb(data) if data else None


async def until(ask: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool]) -> Any:
    """An answer that is so, asked for again and again: nobody tells a client of an actor when something has come."""
    async with asyncio.timeout(30):
        for _ in itertools.count():
            if holds(found := await ask()):
                break
            await asyncio.sleep(0.05)
    return found
