"""Connections from the node to a pod: for probes of TCP, and for `kubectl port-forward`."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading

from wasmlet.concurrency import opened_in_thread
from wasmlet.runtime.network.network import PodNetwork

_CLONE_NEWNET = 0x40000000
LOCALHOST = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def connects(host: str, port: int) -> None:
    """Connect to an address, and hang up. The caller bounds how long it may take.

    Raises:
        OSError: nobody listens there.
    """
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
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


def socket_in(namespace: str, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket that belongs to another network namespace; blocks for less than a millisecond.

    A thread is made for it and ends: a namespace belongs to a thread, and one that could not go back to the node's own
    must do nothing else.

    Args:
        namespace: path of the namespace.

    Raises:
        OSError: it is not there, or may not be entered.
    """
    made: list[socket.socket] = []
    failed: list[BaseException] = []

    def make() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(descriptor)
                made.append(socket.socket(family, kind))
            finally:
                os.close(descriptor)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=make, name="wasmlet-namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


_libc = ctypes.CDLL(None, use_errno=True)


def _enter(descriptor: int) -> None:
    """setns(2), which Python has from 3.12 on."""
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
