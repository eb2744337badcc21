"""Listens for connections in such a way that a flood of strangers does not lock out those who may use the server.

A connection is a stranger's until a request on it has shown who its caller is. Strangers are bounded in number, and in
the time that they have, TLS handshake included. A newcomer is always let in: where there are too many, it takes the
place of one of those that came from the address which most of them are from. So a flood from one address costs callers
from others nothing, and one from many addresses costs a caller another try now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import attrs
import structlog
from aiohttp import web

from wasmlet.concurrency import cut
from wasmlet.failures import described
from wasmlet.kubelet.connections import Connection, timed
from wasmlet.kubelet.descriptors import report_shortage_once

log = structlog.get_logger(__name__)

HEAD_SECONDS = 10.0
"""How long the head of a request, or a TLS handshake, may take."""
_BACKLOG = 1024
_SHORT_SECONDS = 1.0
"""Pause where there is no descriptor left for a connection."""


@attrs.frozen
class Limits:
    """What strangers are given.

    Attributes:
        strangers: how many there are at most.
        seconds: how long one has until a request of its is let through.
        head_seconds: how long the head of each request may take, and a TLS handshake.
    """

    strangers: int = 128
    seconds: float = HEAD_SECONDS
    head_seconds: float = HEAD_SECONDS


@attrs.define(eq=False)
class Stranger:
    """A connection whose caller is not known yet.

    Attributes:
        address: where it is from; of IPv6 the network, since a machine has all of it.
        end: ends the connection, at once.
    """

    address: str
    end: Callable[[], object]
    timer: asyncio.TimerHandle | None = None


class Strangers:
    """Those of one server.

    Args:
        rng: decides who makes room.
    """

    def __init__(self, limits: Limits, rng: random.Random | None = None) -> None:
        self._limits = limits
        self._rng = rng or random.Random()
        self._by_address: dict[str, list[Stranger]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def came(self, address: str, end: Callable[[], object]) -> Stranger:
        """One more; another one's connection is ended where there are too many."""
        if self._count >= self._limits.strangers:
            crowd = max(self._by_address.values(), key=len)
            self._end(self._rng.choice(crowd))
        stranger = Stranger(_network(address), end)
        stranger.timer = asyncio.get_running_loop().call_later(self._limits.seconds, self._end, stranger)
        self._by_address.setdefault(stranger.address, []).append(stranger)
        self._count += 1
        return stranger

    def no_more(self, stranger: Stranger) -> None:
        """Its caller is known, or has gone. Can be called again."""
        if stranger.timer is None:
            return
        stranger.timer.cancel()
        stranger.timer = None
        crowd = self._by_address[stranger.address]
        crowd.remove(stranger)
        if not crowd:
            del self._by_address[stranger.address]
        self._count -= 1

    def end(self) -> None:
        """End them all."""
        for stranger in [one for crowd in self._by_address.values() for one in crowd]:
            self._end(stranger)

    def _end(self, stranger: Stranger) -> None:
        self.no_more(stranger)
        stranger.end()


class _Guest(Connection):
    """A connection that is a stranger's at first."""

    __slots__ = ("_stranger", "_strangers")

    def __init__(self, server: web.Server, strangers: Strangers, stranger: Stranger, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._strangers = strangers
        self._stranger = stranger

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stranger.end = lambda: cut(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.known()
        super().connection_lost(exc)

    def known(self) -> None:
        """Whoever is at the other end may use the server."""
        self._strangers.no_more(self._stranger)


def known(request: web.BaseRequest) -> None:
    """The request has shown that its caller may use the server: its connection may stay for as long as it likes."""
    if isinstance(connection := request.protocol, _Guest):
        connection.known()


@asynccontextmanager
async def listening(
    runner: web.AppRunner,
    address: tuple[str, int],
    context: ssl.SSLContext | None,
    limits: Limits | None = None,
    rng: random.Random | None = None,
    **options: Any,
) -> AsyncIterator[str]:
    """Serve at an address while the context lasts. Gives the URL.

    Args:
        runner: is set up, and serves nowhere else.
        context: TLS; None for plain HTTP.
        options: of aiohttp's `RequestHandler`.

    Raises:
        OSError: the address cannot be had.
    """
    limits = limits or Limits()
    server, loop = runner.server, asyncio.get_running_loop()
    assert server is not None
    server.request_handler = timed(server.request_handler)
    report_shortage_once(loop)
    strangers = Strangers(limits, rng)

    async def let_in(connection: socket.socket, stranger: Stranger) -> None:
        try:
            await loop.connect_accepted_socket(
                lambda: _Guest(server, strangers, stranger, head_seconds=limits.head_seconds, **options),
                connection,
                ssl=context,
                ssl_handshake_timeout=None if context is None else limits.head_seconds,
            )
        except OSError:  # it has gone, or its handshake failed; anybody can cause that, so it is not logged
            strangers.no_more(stranger)
        except Exception as error:
            strangers.no_more(stranger)
            log.error("a connection cannot be served", **described(error))

    def came(connection: socket.socket, address: str) -> None:
        own(let_in(connection, strangers.came(address, lambda: _hang_up(connection))))

    tasks: set[asyncio.Task[None]] = set()

    def own(work: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.create_server(address, family=family, backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        host, port = listener.getsockname()[:2]
        accepting = loop.create_task(_accept(listener, came))
        try:
            yield f"{'http' if context is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            accepting.cancel()
            strangers.end()
            await runner.cleanup()
            await asyncio.wait([accepting, *tasks])


async def _accept(listener: socket.socket, came: Callable[[socket.socket, str], None]) -> None:
    """Take connections, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, address = await loop.sock_accept(listener)
        except ConnectionError:  # its caller has gone meanwhile
            continue
        except OSError as error:
            report = {"message": "socket.accept() out of system resource", "exception": error, "socket": listener}
            loop.call_exception_handler(report)
            await asyncio.sleep(_SHORT_SECONDS)
            continue
        came(connection, address[0])


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False).network_address)
