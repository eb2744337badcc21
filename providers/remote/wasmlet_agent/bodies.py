"""Reads the bodies of requests. Their size is limited, both compressed and decompressed."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import web

from wasmlet.concurrency import in_thread
from wasmlet.errors import InvalidInput
from wasmlet_agent.protocol import MOST_BODY
from wasmlet_agent.protocol.failures import TooLarge

SECONDS = 60.0
"""How long a body may be on its way."""
_AT_ONCE = 4
"""Bodies that are read side by side: as many as a node loop has connections."""
_GZIP = 16 + zlib.MAX_WBITS


class Bodies:
    """Reads bodies, a few at a time, so that many large ones take no more memory than a few."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def read(self, request: web.Request, most: int = MOST_BODY) -> bytes:
        """The body, unpacked.

        Args:
            most: bytes that it may have, also when it is unpacked.

        Raises:
            TooLarge: it is larger.
            InvalidInput: it is compressed with something else than gzip, breaks off, or does not arrive in time.
        """
        packing = request.headers.get("Content-Encoding", "identity").lower()
        if packing not in ("gzip", "identity"):
            raise InvalidInput(f"Content-Encoding: expected gzip or identity, found {packing[:40]!r}")
        if (request.content_length or 0) > most:
            raise _too_large(most)
        async with self._free:
            try:
                async with asyncio.timeout(SECONDS):
                    found = await _all(request, most)
            except TimeoutError:
                raise InvalidInput(f"expected the whole body within {SECONDS:g} s") from None
            return await in_thread(_unpacked, found, most) if packing == "gzip" else found


async def _all(request: web.Request, most: int) -> bytes:
    found = bytearray()
    async for piece in request.content.iter_any():
        found += piece
        if len(found) > most:
            raise _too_large(most)
    return bytes(found)


def _unpacked(packed: bytes, most: int) -> bytes:
    unpacking = zlib.decompressobj(_GZIP)
    try:
        found = unpacking.decompress(packed, most + 1)
    except zlib.error as error:
        raise InvalidInput(f"expected a body packed with gzip, found something else: {error}") from None
    if len(found) > most:
        raise _too_large(most)
    if not unpacking.eof:
        raise InvalidInput("expected a body packed with gzip, found one that breaks off")
    return found


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"expected a body of at most {most} bytes")
