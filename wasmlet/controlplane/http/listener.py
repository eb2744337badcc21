"""The sockets that the API server listens on; for an outage they are closed, and opened again on the same port.

`wasmlet.controlplane.faults` closes and reopens them; while they are closed, connections are refused, and the port
stays reserved.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl

from aiohttp import web

from wasmlet.concurrency import cut
from wasmlet.kubelet.descriptors import report_shortage_once

BACKLOG = 1024
_TRIES = 50


class Listener:
    """One TLS port (on each address of the host) for the server behind a runner."""

    def __init__(self, runner: web.ServerRunner, context: ssl.SSLContext) -> None:
        self._runner = runner
        self._context = context
        self._held: list[socket.socket] = []

    async def open(self, host: str, port: int) -> int:
        """Listen. Returns the port; 0 as the port asks for a free one.

        Raises:
            OSError: the port is taken.
        """
        report_shortage_once(asyncio.get_running_loop())
        await web.TCPSite(self._runner, host, port, ssl_context=self._context, backlog=BACKLOG).start()
        return int(self._runner.addresses[0][1])

    def disconnect(self) -> None:
        """Break every connection at once."""
        assert self._runner.server is not None
        for connection in list(self._runner.server.connections):
            cut(connection.transport)

    async def shut(self) -> None:
        """Refuse connections, and break those that are open."""
        addresses = self._runner.addresses
        self._accept_no_more()
        self.disconnect()
        await asyncio.sleep(0)  # what was accepted a moment ago becomes a connection, which can be broken
        for site in list(self._runner.sites):
            await site.stop()
        self.disconnect()
        self._held += [await _hold(address) for address in addresses]

    def _accept_no_more(self) -> None:
        """Have asyncio's own loop accept nothing more.

        It would leave the socket open of a connection that it has accepted in the turn in which its server is closed.
        """
        loop = asyncio.get_running_loop()
        if isinstance(loop, asyncio.SelectorEventLoop):
            for site in self._runner.sites:
                server = getattr(site, "_server", None)
                for listening in server.sockets if server is not None else ():
                    loop.remove_reader(listening.fileno())

    async def reopen(self) -> None:
        """Listen again where `shut` left off."""
        held, self._held = self._held, []
        for address in held:
            await web.SockSite(self._runner, address, ssl_context=self._context, backlog=BACKLOG).start()

    def close(self) -> None:
        """Free the ports that are reserved but not listened on."""
        for held in self._held:
            held.close()
        self._held.clear()


async def _hold(address: tuple[object, ...]) -> socket.socket:
    """A socket bound to an address that does not listen: connections are refused and the port stays ours."""
    held = socket.socket(socket.AF_INET6 if len(address) == 4 else socket.AF_INET)
    with contextlib.ExitStack() as stack:
        stack.callback(held.close)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if held.family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for attempt in range(_TRIES):
            try:
                held.bind(address)
                break
            except OSError as error:
                # An event loop may close a listening socket a moment after it was told to.
                if error.errno != errno.EADDRINUSE or attempt == _TRIES - 1:
                    raise
            await asyncio.sleep(0.01)
        stack.pop_all()
    return held
