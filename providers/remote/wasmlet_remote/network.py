"""The network connections below httpx, made with asyncio's own streams and the TLS of the event loop.

httpx itself would use anyio, whose TLS is written in Python. With it a request takes half as much CPU time again.
"""

from __future__ import annotations

import abc
import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, ClassVar

import httpcore
import httpx

from wasmlet.concurrency import cut

_AT_ONCE = 64 * 1024
"""Bytes that are gathered before they are sent."""


class Stream(httpcore.AsyncNetworkStream):
    """One connection.

    httpcore writes a request in parts: its head, its body, and an empty part for its end. Small parts are sent
    together: a part waits until there are enough bytes, until the empty part comes, or until somebody reads.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._gathered = bytearray()
        self._reading = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        try:
            async with asyncio.timeout(timeout):
                self._reading = True
                if self._gathered:
                    await self._send()
                return await self._reader.read(max_bytes)
        except TimeoutError:
            raise httpcore.ReadTimeout("it does not answer") from None
        except OSError as error:
            raise httpcore.ReadError(str(error)) from None
        finally:
            self._reading = False

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        self._gathered += buffer
        if buffer and not self._reading and len(self._gathered) < _AT_ONCE:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._send()
        except TimeoutError:
            raise httpcore.WriteTimeout("it does not read") from None
        except OSError as error:
            raise httpcore.WriteError(str(error)) from None

    async def _send(self) -> None:
        gathered, self._gathered = self._gathered, bytearray()
        self._writer.write(gathered)
        await self._writer.drain()

    async def aclose(self) -> None:
        cut(self._writer.transport)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except TimeoutError:
            raise httpcore.ConnectTimeout("no TLS handshake") from None
        except OSError as error:  # an SSLError is one
            raise httpcore.ConnectError(str(error)) from error
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # asked of a connection that nobody uses: then it is over
            return self._reader.at_eof() or self._reader.exception() is not None or self._writer.is_closing()
        return self._writer.get_extra_info(info)


class Backend(httpcore.AsyncNetworkBackend):
    """Connects for httpcore. Abstract: `open`.

    Class attributes:
        late: the text of the error when no connection was made in time.
    """

    late: ClassVar[str]

    @abc.abstractmethod
    async def open(self, host: str, port: int) -> httpcore.AsyncNetworkStream:
        """A connection. Raises `OSError` where there is none."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                return await self.open(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout(self.late) from None
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from None

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class StreamBackend(Backend):
    """Connects by TCP."""

    late = "it cannot be reached in time"

    async def open(self, host: str, port: int) -> httpcore.AsyncNetworkStream:
        return Stream(*await asyncio.open_connection(host, port))


class PoolTransport(httpx.AsyncHTTPTransport):
    """httpx over connections that a backend makes."""

    def __init__(self, backend: Backend, limits: httpx.Limits, context: ssl.SSLContext | None = None) -> None:
        # What the base class makes is a pool with a network of its own, and a TLS context that costs 0.5 MiB.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=backend,
        )
