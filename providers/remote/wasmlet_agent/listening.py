"""Where an agent listens: anybody may connect there, and be slow."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from wasmlet.kubelet.connections import Connection, timed
from wasmlet.kubelet.descriptors import report_shortage_once

HEAD_SECONDS = 10.0
"""How long the head of a request, or a TLS handshake, may take."""
_BACKLOG = 512
_LINGER_SECONDS = 1.0
"""How long what is left of a refused body is read, so that its sender sees the answer."""


@asynccontextmanager
async def listening(
    runner: web.AppRunner, address: tuple[str, int], context: ssl.SSLContext | None, head_seconds: float = HEAD_SECONDS
) -> AsyncIterator[str]:
    """Serve at an address while the context lasts; the URL.

    Args:
        runner: is set up, and serves nowhere else.
        context: TLS; None for plain HTTP.

    Raises:
        OSError: the address cannot be had.
    """
    server, loop = runner.server, asyncio.get_running_loop()
    assert server is not None
    server.request_handler = timed(server.request_handler)
    report_shortage_once(loop)

    def connection() -> asyncio.Protocol:
        return Connection(
            server, loop=loop, head_seconds=head_seconds, auto_decompress=False, lingering_time=_LINGER_SECONDS
        )

    host, port = address
    listener = await loop.create_server(
        connection,
        host,
        port,
        ssl=context,
        ssl_handshake_timeout=None if context is None else head_seconds,
        backlog=_BACKLOG,
        reuse_address=True,
    )
    try:
        host, port = listener.sockets[0].getsockname()[:2]
        yield f"{'http' if context is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        listener.close()
        await runner.cleanup()
        await listener.wait_closed()
