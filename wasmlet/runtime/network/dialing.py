"""Makes TCP connections from the node to a pod, for probes, hooks and `kubectl port-forward`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Collection

import attrs

from wasmlet.concurrency import cut, opened_in_thread
from wasmlet.runtime.network.namespaces import socket_in
from wasmlet.runtime.network.network import PodNetwork

LOCALHOST = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class NotThePods(ConnectionRefusedError):
    """Whoever listens at that port is not the pod."""


@attrs.frozen
class Place:
    """Where a pod can be reached.

    Attributes:
        address: the pod's address.
        ports: the TCP ports at which its containers may listen; None for all, if it has a network namespace. Without
            a namespace, a service at another port would be one of the node, which listens at all addresses.
    """

    address: str
    ports: Collection[int] | None = None

    def check(self, port: int) -> None:
        """Raises `NotThePods`."""
        if self.ports is not None and port not in self.ports:
            raise NotThePods(errno.ECONNREFUSED, "connection refused: no container of the pod listens there")


def words(error: OSError) -> str:
    """The reason why a connection failed, in the usual words, because people search for them."""
    if error.errno and not isinstance(error, (NotThePods, ssl.SSLError)):
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)


async def connects(place: Place, port: int) -> None:
    """Connect to a port of a pod, and hang up. The caller bounds how long it may take.

    Raises:
        OSError: nobody listens there.
    """
    place.check(port)
    _, writer = await asyncio.open_connection(place.address, port)
    await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once.

    Nothing waits for the other side, which is a pod's: it may never read what is on its way, nor end its TLS.
    """
    writer.close()  # which says goodbye where there is TLS
    cut(writer.transport)
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def connect_inside(network: PodNetwork, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a port of a pod as one of its own containers would: to localhost, then to its addresses.

    A pod without a namespace has no localhost of its own.

    Raises:
        OSError: nobody listens there.
    """
    own = [(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip) for ip in network.ips]
    failed: OSError | None = None
    for family, address in [*(LOCALHOST if network.namespace else ()), *own]:
        try:
            sock = await _socket(network.namespace, family)
        except OSError as error:  # a namespace without IPv6
            failed = failed or error
            continue
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            return await asyncio.open_connection(sock=sock)
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
    assert failed is not None
    raise failed


async def _socket(namespace: str, family: int) -> socket.socket:
    """A TCP socket that does not block, of the pod's namespace if it has one."""
    if not namespace:
        sock = socket.socket(family, socket.SOCK_STREAM)
    else:
        sock = await opened_in_thread(lambda: socket_in(namespace, family), socket.socket.close)
    sock.setblocking(False)
    return sock
