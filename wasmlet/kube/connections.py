"""Connections to the API server and to issuers of tokens: directly, or through the proxy that stands before them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

CONNECT_SECONDS = 30.0
KEPT_SECONDS = 60.0
"""How long a connection is kept that is not used. An API server closes one after 90 seconds."""
CLOSE_SECONDS = 1.0
"""How long a server may take to close its side of a connection that is closed here; then it is broken off."""


def opened_session(
    proxy: str | None, ssl_context: ssl.SSLContext | None, *, limit: int = 100, **more: Any
) -> aiohttp.ClientSession:
    """A session whose connections lead through a proxy, if there is one, and notice it when the other side has gone.

    Args:
        ssl_context: for servers with TLS; None means that none has it.
        limit: the largest number of connections at a time; 0 means no limit.
        more: what else aiohttp's session takes.
    """
    through = None if proxy is None or is_socks(proxy) else proxy
    return aiohttp.ClientSession(connector=connector(proxy, ssl_context, limit=limit), proxy=through, **more)


def connector(proxy: str | None, ssl_context: ssl.SSLContext | None, *, limit: int) -> aiohttp.TCPConnector:
    """What opens such connections. A proxy that is not of SOCKS is named with each request."""
    common: dict[str, Any] = {"ssl": ssl_context or True, "limit": limit, "keepalive_timeout": KEPT_SECONDS}
    if proxy is not None and is_socks(proxy):
        return _SocksConnector(proxy, **common)
    return _Connector(socket_factory=_socket, **common)


def is_socks(proxy: str) -> bool:
    """Whether connections are made by SOCKS5, and requests do not show the proxy."""
    return proxy.startswith("socks5")


class _Connector(aiohttp.TCPConnector):
    """A connector that leaves no connection open when it is closed.

    When a request was given up, aiohttp begins to close its TLS connection, and does not wait for the server's part. If
    the event loop ends before that, a traceback and an open socket are left. So this connector waits for a moment, and
    then breaks the connections off.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._made: WeakKeyDictionary[ResponseHandler, asyncio.Transport] = WeakKeyDictionary()

    async def _create_connection(self, *args: Any) -> ResponseHandler:
        protocol = await super()._create_connection(*args)
        if protocol.transport is not None:
            self._made[protocol] = protocol.transport
        return protocol

    async def close(self, *, abort_ssl: bool = False) -> None:
        await super().close(abort_ssl=abort_ssl)
        if not await self._closed_soon():
            for protocol, transport in self._made.items():
                if protocol.closed is not None:
                    break_off(transport)
            await self._closed_soon()

    async def _closed_soon(self) -> bool:
        """Wait until all connections are closed, for a moment at most; whether they are."""
        left = [closed for protocol in self._made if (closed := protocol.closed) is not None]
        return not left or not (await asyncio.wait(left, timeout=CLOSE_SECONDS))[1]


def break_off(transport: asyncio.Transport) -> None:
    """Close a connection at once.

    One in TLS that was closed twice has nothing to break off any more; early versions of Python 3.11 fail then.
    """
    with suppress(AttributeError):
        transport.abort()


class _SocksConnector(_Connector):
    """A connector whose connections lead through a SOCKS5 proxy. The proxy looks up names, as with Go."""

    def __init__(self, proxy: str, **more: Any) -> None:
        super().__init__(resolver=_Unresolved(), **more)
        self._proxy = proxy

    async def _wrap_create_connection(self, *args: Any, addr_infos: Any, req: Any, **more: Any) -> tuple[Any, Any]:
        # Imported where it is needed: few nodes have such a proxy.
        from python_socks import ProxyError, ProxyType
        from python_socks.async_.asyncio import Proxy

        url = urlsplit(self._proxy)
        name, password = (None if part is None else unquote(part) for part in (url.username, url.password))
        assert url.hostname is not None
        proxy = Proxy(ProxyType.SOCKS5, url.hostname, url.port or 1080, name, password, rdns=True)
        host, port = addr_infos[0][4][:2]
        try:
            connected = await proxy.connect(host, port, timeout=more["timeout"].sock_connect or CONNECT_SECONDS)
        except TimeoutError:
            raise
        except (ProxyError, OSError) as error:
            raise aiohttp.ClientConnectionError(f"SOCKS proxy {url.hostname}: {error}") from None
        try:
            _watched(connected)
            return await self._wrap_existing_connection(*args, req=req, sock=connected, **more)
        except BaseException:
            connected.close()
            raise


class _Unresolved(AbstractResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host=host, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        return None


def keepalive() -> list[tuple[int, int, int]]:
    """Options of a socket (level, name, value) that notices within a minute that the other machine has gone.

    It does so while nothing is said, too, as in a watch.
    """
    found = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if hasattr(socket, "TCP_KEEPIDLE"):
        times = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
        found += [(socket.IPPROTO_TCP, name, value) for name, value in times.items()]
    return found


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    _watched(made)
    return made


def _watched(made: socket.socket) -> None:
    for option in keepalive():
        made.setsockopt(*option)
