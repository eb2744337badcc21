"""Connections to the API server through a SOCKS5 proxy, which aiohttp does not know by itself."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

CONNECT_SECONDS = 30.0


def through_socks(proxy: str | None) -> bool:
    """Whether a proxy is one that only `SocksConnector` knows."""
    return proxy is not None and proxy.startswith("socks5")


class SocksConnector(aiohttp.TCPConnector):
    """A connector whose connections lead through a SOCKS5 proxy. The proxy looks up names, as with Go.

    Args:
        proxy: URL of the proxy.
        prepared: called with the socket of each connection.
    """

    def __init__(self, proxy: str, prepared: Callable[[socket.socket], None], **more: Any) -> None:
        super().__init__(resolver=_Unresolved(), **more)
        self._proxy = proxy
        self._prepared = prepared

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
            self._prepared(connected)
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
