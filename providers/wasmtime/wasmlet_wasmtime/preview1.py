"""The functions of WASI preview 1 for descriptors that are sockets.

`hostcalls` calls them with the guest's `Network` and the arguments. Each returns WASI's error number, or raises (see
`sockets`). The engine's own functions answer for files.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

from .functions import INVAL
from .sockets import (
    AGAIN,
    BADF,
    DATAGRAM,
    MFILE,
    NOTSUP,
    STREAM,
    SUCCESS,
    Failed,
    Network,
    Socket,
    checked,
)
from .split import LOW

_NONBLOCK, _APPEND = 4, 1
_RIGHTS = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 21 | 1 << 27 | 1 << 28 | 1 << 29
"""Read, set flags, write, status, poll, shut down, accept."""
_FDSTAT = struct.Struct("<BxHxxxxQQ")
_FILESTAT = struct.Struct("<QQBxxxxxxxQQQQQ")
_PRESTAT = struct.Struct("<II")
_NO_DIRECTORY = 1
"""A kind of preopened descriptor that no program knows: C and Go then try the next one. An error would stop them."""
_PEEK, _WAITALL = 1, 2
_TRUNCATED = 1
_HOW = {1: socket.SHUT_RD, 2: socket.SHUT_WR, 3: socket.SHUT_RDWR}
_U16 = struct.Struct("<H")


def which(network: Network, word: int) -> int:
    """A bit for each of 32 low descriptors: whether it is a socket. Unlike others, it returns no error number."""
    return sum(1 << number % 32 for number in network.sockets if number < LOW and number // 32 == word)


def close(network: Network, number: int) -> int:
    network.end(network.remove(number))
    return SUCCESS


def renumber(network: Network, number: int, to: int) -> int:
    if number == to:
        network.find(number)
        return SUCCESS
    if to >= LOW:
        network.find(to)
    moved = network.remove(number)
    replaced = network.sockets.get(to)
    if replaced is not None:
        network.end(replaced)
    network.sockets[to] = moved
    return SUCCESS


def refuse(network: Network, number: int, error: int) -> int:
    """Answer a function that sockets do not have, with this error number."""
    network.find(number)
    return error


def _asked(network: Network, number: int, iovs: int, count: int, stored: int) -> tuple[Socket, list[memoryview]]:
    """The socket to read or write, and the buffers. Checks that `stored`, where the count goes, is in the memory."""
    found = network.sockets.get(number)
    if found is None:
        raise Failed(BADF)
    buffers = network.buffers(iovs, count)
    network.check(stored, 4)
    return found, buffers


def fd_read(network: Network, number: int, iovs: int, count: int, stored: int) -> int:
    found, buffers = _asked(network, number, iovs, count, stored)
    if found.drained and not found.nonblocking and not _ready(network, found, select.POLLIN):
        return AGAIN
    if found.kind < DATAGRAM and found.nonblocking and not network.wait(found.fds, select.POLLIN, 0.0):
        return AGAIN
    fds = found.fds
    while True:
        try:
            got = os.readv(fds[0] if fds else found.fd, buffers)
        except BlockingIOError:
            if found.nonblocking or not _ready(network, found, select.POLLIN):
                return AGAIN
        else:
            if not found.blocks:
                found.drained = not buffers or got < len(buffers[0])
            network.put(stored, got)
            return SUCCESS


def fd_write(network: Network, number: int, iovs: int, count: int, stored: int) -> int:
    found, buffers = _asked(network, number, iovs, count, stored)
    network.put(stored, _written(network, found, buffers))
    return SUCCESS


def _written(network: Network, found: Socket, buffers: list[memoryview]) -> int:
    """Write the buffers, and return how many bytes that were.

    On a non-blocking socket that is as much as there is room for; else all of it, as `write` does on other systems.
    """
    written = 0
    fds = found.fds
    while True:
        try:
            got = os.writev(fds[0] if fds else found.fd, buffers)
        except BlockingIOError:
            if found.nonblocking or not _ready(network, found, select.POLLOUT):
                if written:
                    return written
                raise
            continue
        except OSError:
            if written:
                return written
            raise
        written += got
        if found.nonblocking or found.kind == DATAGRAM:
            return written
        buffers = _rest(buffers, got)
        if not buffers:
            return written


def _rest(buffers: list[memoryview], taken: int) -> list[memoryview]:
    """What is left of buffers after so many bytes."""
    place = 0
    while place < len(buffers) and taken >= len(buffers[place]):
        taken -= len(buffers[place])
        place += 1
    rest = buffers[place:]
    if taken:
        rest[0] = rest[0][taken:]
    return rest


def _ready(network: Network, found: Socket, events: int) -> bool:
    """Wait until the socket is ready. Returns False when the time is over that the guest has set for waiting."""
    if found.request is not None:
        connected(network, found)
        return True
    return found.ready(network, events)


def connected(network: Network, found: Socket) -> None:
    """Wait for the answer to a request for a connection, and take it."""
    if found.request is not None:
        answer = network.answer(found.request)
        found.request = None
        found.become(checked(answer).fds)
        network.settle(found)


def fd_fdstat_get(network: Network, number: int, stored: int) -> int:
    found = network.find(number)
    flags = _NONBLOCK if found.nonblocking else 0
    _FDSTAT.pack_into(network.memory, stored, found.kind, flags, _RIGHTS, _RIGHTS)
    found.patient = False
    return SUCCESS


def fd_fdstat_set_flags(network: Network, number: int, flags: int) -> int:
    if flags & ~(_NONBLOCK | _APPEND):
        return INVAL
    found = network.find(number)
    found.nonblocking = bool(flags & _NONBLOCK)
    found.patient = False
    network.settle(found)
    return SUCCESS


def fd_filestat_get(network: Network, number: int, stored: int) -> int:
    found = network.find(number)
    _FILESTAT.pack_into(network.memory, stored, 0, number, found.kind, 1, 0, 0, 0, 0)
    return SUCCESS


def fd_prestat_get(network: Network, number: int, stored: int) -> int:
    if not network.find(number).port:
        return BADF
    _PRESTAT.pack_into(network.memory, stored, _NO_DIRECTORY, 0)
    return SUCCESS


def sock_accept(network: Network, number: int, flags: int, stored: int) -> int:
    found = network.find(number)
    network.check(stored, 4)
    if not network.has_room():
        return MFILE
    if not found.port or found.kind != STREAM:
        return INVAL
    if not found.listening:
        found.listen()
    nonblocking = bool(flags & _NONBLOCK)
    blocks = network.wake < 0 and not nonblocking
    while True:
        try:
            descriptor = found.accept(blocks)
            break
        except BlockingIOError:
            if found.nonblocking and not found.patient:
                return AGAIN
            if not found.ready(network, select.POLLIN):
                return AGAIN
    accepted = Socket(STREAM, (descriptor,), nonblocking=nonblocking)
    accepted.blocks = blocks
    network.put(stored, network.add(accepted))
    return SUCCESS


def sock_accept_plain(network: Network, number: int, stored: int) -> int:
    """WasmEdge's `sock_accept`, which has no flags."""
    return sock_accept(network, number, 0, stored)


def sock_recv(network: Network, number: int, iovs: int, count: int, flags: int, stored: int, told: int) -> int:
    found = network.find(number)
    network.check(told, 2)
    if not flags and found.kind == STREAM:
        _U16.pack_into(network.memory, told, 0)
        return fd_read(network, number, iovs, count, stored)
    buffers = network.buffers(iovs, count)
    network.check(stored, 4)
    got, what, _ = received(network, found, buffers, flags)
    network.put(stored, got)
    _U16.pack_into(network.memory, told, _TRUNCATED if what & socket.MSG_TRUNC else 0)
    return SUCCESS


def received(
    network: Network, found: Socket, buffers: list[memoryview], flags: int
) -> tuple[int, int, tuple[str, int] | None]:
    """Receive into the buffers; waits if the guest's socket is blocking.

    Returns:
        The number of bytes, the flags that the host gives with them, and the sender's address and port, if known.
    """
    if flags & ~(_PEEK | _WAITALL):
        raise Failed(NOTSUP)
    wants = socket.MSG_PEEK if flags & _PEEK else 0
    whole = bool(flags & _WAITALL) and not found.nonblocking and found.kind == STREAM
    if whole and flags & _PEEK:
        raise Failed(NOTSUP)
    total = 0
    while True:
        try:
            found.fd  # noqa: B018 - raises where it is not connected
            got, _, what, sender = found.python.recvmsg_into(buffers, 0, wants)
        except BlockingIOError:
            if found.nonblocking or not _ready(network, found, select.POLLIN):
                if total:
                    return total, 0, None
                raise
            continue
        total += got
        buffers = _rest(buffers, got) if whole else []
        if not got or not buffers:
            return total, what, (sender[0], sender[1]) if sender else None


def sock_send(network: Network, number: int, iovs: int, count: int, flags: int, stored: int) -> int:
    return NOTSUP if flags else fd_write(network, number, iovs, count, stored)


def sock_shutdown(network: Network, number: int, how: int) -> int:
    found = network.find(number)
    if how not in _HOW:
        return INVAL
    if not found.fds:
        raise OSError(errno.ENOTCONN, "not connected")
    found.shut_down(_HOW[how])
    return SUCCESS
