"""The sockets of one guest: which of its descriptors they are, its memory during a call, and how it waits.

A guest's process opens no socket. All sockets come from the broker (see `seam`), or are accepted. Most are non-blocking
on the host's side. A guest that wants to wait does so in `Network.poll`, which ends when the guest is to end. Only
where nobody has to wake the guest, the host's socket itself blocks (`Network.settle`).

Functions for guests report errors as exceptions: `OSError` with the host's number, `Failed` with WASI's.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

from .seam import Answer, Broker
from .split import FIRST, LOW

_NAMES = """
2BIG ACCES ADDRINUSE ADDRNOTAVAIL AFNOSUPPORT AGAIN ALREADY BADF BADMSG BUSY CANCELED CHILD CONNABORTED
CONNREFUSED CONNRESET DEADLK DESTADDRREQ DOM DQUOT EXIST FAULT FBIG HOSTUNREACH IDRM ILSEQ INPROGRESS INTR
INVAL IO ISCONN ISDIR LOOP MFILE MLINK MSGSIZE MULTIHOP NAMETOOLONG NETDOWN NETRESET NETUNREACH NFILE NOBUFS
NODEV NOENT NOEXEC NOLCK NOLINK NOMEM NOMSG NOPROTOOPT NOSPC NOSYS NOTCONN NOTDIR NOTEMPTY NOTRECOVERABLE
NOTSOCK NOTSUP NOTTY NXIO OVERFLOW OWNERDEAD PERM PIPE PROTO PROTONOSUPPORT PROTOTYPE RANGE ROFS SPIPE SRCH
STALE TIMEDOUT TXTBSY XDEV NOTCAPABLE
"""
_NUMBERS = {name: number for number, name in enumerate(_NAMES.split(), 1)}
SUCCESS, FAULT, IO = 0, _NUMBERS["FAULT"], _NUMBERS["IO"]
BADF, INVAL, AGAIN = _NUMBERS["BADF"], _NUMBERS["INVAL"], _NUMBERS["AGAIN"]
NOTSUP, NOTSOCK, MFILE = _NUMBERS["NOTSUP"], _NUMBERS["NOTSOCK"], _NUMBERS["MFILE"]
_OF_HOST = {getattr(errno, f"E{name}"): number for name, number in _NUMBERS.items() if hasattr(errno, f"E{name}")}

DATAGRAM, STREAM = 5, 6
"""WASI's file types of sockets."""
MOST = 8000
"""Sockets of one guest. A process has 8192 descriptors, and wasmtime ends it where it needs one and there is none."""
_BACKLOG = 4096
_MOST_BUFFERS = 1024
LOOK = 5.0
"""How many seconds to wait for the broker before asking again whether it has answered."""
_LONGEST_WAIT = 10**9
"""The longest single wait, in milliseconds. A longer one is made of several."""

_U32, _PAIR = struct.Struct("<I"), struct.Struct("<II")
_libc = ctypes.CDLL(None, use_errno=True)
_accept4, _listen, _shutdown = _libc.accept4, _libc.listen, _libc.shutdown
_accept4.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_listen.argtypes = _shutdown.argtypes = (ctypes.c_int, ctypes.c_int)
_BLOCKING = socket.SOCK_CLOEXEC
_ACCEPTED = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


class Failed(Exception):
    """A function fails with this error number of WASI's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interrupted(Exception):
    """The guest has to end now."""


def of_host(number: int | None) -> int:
    """WASI's number for an error of the host."""
    return _OF_HOST.get(number or 0, IO)


class Socket:
    """One socket of the guest's, or its standard input.

    Attributes:
        fds: of the host, which are this socket's alone: a listener may have several, one that is not connected none.
        kind: its file type.
        port: that a listener is bound to, 0 for other sockets.
        nonblocking: whether the guest has made it non-blocking.
        patient: `accept` waits although the socket is non-blocking. It is so for a listener that the guest had from
            its start, until the guest asks for its flags. A guest that does (Go) finds a non-blocking socket; one that
            does not (plain C) gets an `accept` that waits, as on other systems.
        request: the number of a `connect` that the broker has not answered; None for none.
        error: the host's error number of a `connect` that has failed, until the guest has seen it; 0 for none.
        drained: whether the last read has emptied it, so that the next one has to wait first.
        blocks: whether the host's socket itself is blocking.
    """

    __slots__ = (
        "_python", "_waiter", "blocks", "drained", "error", "fds", "kind", "listening", "nonblocking", "options",
        "patient", "peer", "port", "request", "timeouts",
    )  # fmt: skip

    def __init__(self, kind: int, fds: Iterable[int] = (), port: int = 0, nonblocking: bool = False) -> None:
        self.fds = list(fds)
        self.kind = kind
        self.port = port
        self.nonblocking = nonblocking
        self.listening = self.patient = self.drained = self.blocks = False
        self.request: int | None = None
        self.error = 0
        self.peer: tuple[str, int] | None = None
        self.timeouts: dict[int, float] | None = None
        self.options: dict[int, bytes] | None = None
        self._python: socket.socket | None = None
        self._waiter: tuple[select.poll, int] | None = None

    @property
    def fd(self) -> int:
        """The host's only one.

        Raises:
            OSError: there is none yet.
        """
        if not self.fds:
            raise OSError(errno.EAGAIN if self.request is not None else errno.ENOTCONN, "not connected")
        return self.fds[0]

    @property
    def python(self) -> socket.socket:
        """For the calls that are methods of Python's sockets. It is made without any system call."""
        if self._python is None:
            kind = socket.SOCK_DGRAM if self.kind == DATAGRAM else socket.SOCK_STREAM
            self._python = socket.socket(socket.AF_INET, kind, 0, fileno=self.fd)
        return self._python

    def ready(self, network: Network, events: int) -> bool:
        """Wait for `select.POLLIN` or `select.POLLOUT`; False where the guest does not want to wait so long.

        Raises:
            OSError: it is not connected.
            Interrupted: the guest is to end.
        """
        if self._waiter is None or self._waiter[1] != events:
            poller = network.poller()
            for descriptor in self.fds or (self.fd,):
                poller.register(descriptor, events)
            self._waiter = poller, events
        return bool(network.poll(self._waiter[0], self.timeouts.get(events) if self.timeouts else None))

    def listen(self, backlog: int = _BACKLOG) -> None:
        """Accept connections from now on. Called when the guest asks for them for the first time."""
        for descriptor in self.fds:
            if _listen(descriptor, max(1, min(backlog, _BACKLOG))) < 0:
                _raise()
        self.listening = True

    def accept(self, blocking: bool) -> int:
        """A connection as a descriptor of the host's. It does not wait. `blocking`: whether reading from it is to."""
        for _ in range(len(self.fds)):
            self.fds.append(descriptor := self.fds.pop(0))  # those that came to the others have their turn, too
            accepted: int = _accept4(descriptor, None, None, _BLOCKING if blocking else _ACCEPTED)
            if accepted >= 0:
                return accepted
            if ctypes.get_errno() != errno.EAGAIN:
                _raise()
        raise BlockingIOError(errno.EAGAIN, "no connection")

    def shut_down(self, how: int) -> None:
        if _shutdown(self.fd, how) < 0:
            _raise()

    def become(self, fds: Iterable[int]) -> None:
        """Close the descriptors of this socket, and use these instead."""
        self.close()
        self.fds = list(fds)
        self.blocks = False

    def close(self) -> None:
        if self._python is not None:
            self._python.detach()
            self._python = None
        self._waiter = None
        for descriptor in self.fds:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.fds = []


def _raise() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


class Network:
    """The network of one guest: its sockets, and its view of its memory.

    Args:
        broker: what it asks for sockets.
        wake: a descriptor that is readable when the guest is to end; -1 where its process ends with it.
    """

    __slots__ = (
        "_free", "_next", "_refresh", "began", "broker", "changes", "http", "keep", "memory", "native_now",
        "native_poll", "pages", "plan", "size", "sockets", "wake",
    )  # fmt: skip

    def __init__(self, broker: Broker, wake: int = -1) -> None:
        self.broker = broker
        self.wake = wake
        self.sockets: dict[int, Socket] = {}
        self.changes = 0
        """Goes up whenever a socket changes: a plan of `polling` that was made before is no longer valid."""
        self.plan: Any = None
        self.http: Any = None
        """What `krustlet` has for this guest; None where it has asked for nothing."""
        self.began: int | None = None
        self.memory = memoryview(b"")
        self.size, self.pages = 0, -1
        self._refresh: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.native_poll: Callable[..., int] = lambda *_: IO
        self.native_now: Callable[..., int] = lambda *_: IO
        self._next = FIRST
        self._free: list[int] = []

    def attach(self, refresh: Callable[[], tuple[int, int]], keep: object) -> None:
        """Set where the guest's memory is.

        Args:
            refresh: returns the address and the number of bytes.
            keep: an object that `refresh` needs, kept so that Python does not free it.
        """
        self._refresh, self.keep = refresh, keep

    def look(self, pages: int) -> None:
        """The memory has this size now. The view of it gets the same size, so that nothing outside is ever touched."""
        base, size = self._refresh()
        self.size, self.pages = size, pages
        self.memory = memoryview((ctypes.c_char * size).from_address(base)).cast("B") if base else memoryview(b"")

    def buffers(self, address: int, count: int) -> list[memoryview]:
        """The parts of the memory that an array of `iovec` names.

        Raises:
            struct.error: the array is not in the memory.
            Failed: a part is not in the memory, or the array is too long.
        """
        if count == 1:
            begin, size = _PAIR.unpack_from(self.memory, address)
            if begin + size > self.size:
                raise Failed(FAULT)
            return [self.memory[begin : begin + size]]
        if count > _MOST_BUFFERS:
            raise Failed(INVAL)
        numbers = struct.unpack_from(f"<{2 * count}I", self.memory, address)
        found = []
        for place in range(0, 2 * count, 2):
            begin, size = numbers[place], numbers[place + 1]
            if begin + size > self.size:
                raise Failed(FAULT)
            found.append(self.memory[begin : begin + size])
        return found

    def read(self, address: int, size: int) -> bytes:
        if address + size > self.size:
            raise Failed(FAULT)
        return bytes(self.memory[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        if address + len(data) > self.size:
            raise Failed(FAULT)
        self.memory[address : address + len(data)] = data

    def check(self, address: int, size: int) -> None:
        if address + size > self.size:
            raise Failed(FAULT)

    def put(self, address: int, value: int) -> None:
        """Store 32 bits."""
        _U32.pack_into(self.memory, address, value)

    def get(self, address: int) -> int:
        """Load 32 bits."""
        found: int = _U32.unpack_from(self.memory, address)[0]
        return found

    def find(self, number: int) -> Socket:
        """The guest's socket of this number."""
        found = self.sockets.get(number)
        if found is None:
            raise Failed(NOTSOCK if number < LOW else BADF)
        return found

    def add(self, made: Socket) -> int:
        """Give a socket a descriptor of the guest's, and return that."""
        if self._free:
            number = self._free.pop()
        else:
            number = self._next
            self._next += 1
        self.sockets[number] = made
        return number

    def has_room(self) -> bool:
        return len(self.sockets) < MOST

    def remove(self, number: int) -> Socket:
        found = self.find(number)
        del self.sockets[number]
        self.changes += 1
        if number >= FIRST:
            self._free.append(number)
        return found

    def close(self) -> None:
        """Let go of everything."""
        if self.http is not None:
            self.http.close()
        for one in self.sockets.values():
            self.end(one)
        self.sockets.clear()

    def end(self, one: Socket) -> None:
        """Close a socket that the guest no longer has."""
        if one.request is not None:
            self.broker.drop(one.request)
        one.close()

    def settle(self, one: Socket) -> None:
        """Make the host's socket blocking, if the guest wants to wait on it and nobody has to wake it then."""
        blocks = self.wake < 0 and one.kind == STREAM and not (one.nonblocking or one.timeouts or one.port)
        if blocks != one.blocks and one.fds:
            os.set_blocking(one.fds[0], blocks)
            one.blocks = blocks

    def wait(self, descriptors: Iterable[int], events: int, seconds: float | None = None) -> bool:
        """Wait until one of these is ready; False where that takes too long.

        Raises:
            Interrupted: the guest is to end.
        """
        poller = self.poller()
        for descriptor in descriptors:
            poller.register(descriptor, events)
        return bool(self.poll(poller, seconds))

    def poller(self) -> select.poll:
        """A poll object for `poll`; it watches `wake`, too."""
        made = select.poll()
        if self.wake >= 0:
            made.register(self.wake, select.POLLIN)
        return made

    def poll(self, poller: select.poll, seconds: float | None = None) -> list[tuple[int, int]]:
        """As `poller.poll`, for a guest that may be told to end.

        Raises:
            Interrupted: it is to end.
        """
        if seconds is None:
            found = poller.poll()
            if self.wake >= 0:
                self._check(found)
            return found
        until = time.monotonic() + seconds
        while True:
            found = poller.poll(min(max(0.0, until - time.monotonic()) * 1000, _LONGEST_WAIT))
            self._check(found)
            if found or time.monotonic() >= until:
                return found

    def _check(self, found: list[tuple[int, int]]) -> None:
        for descriptor, _ in found:
            if descriptor == self.wake:
                raise Interrupted

    def wait_for_broker(self, descriptor: int) -> bool:
        """Wait until the broker may have answered, or a while; see `Broker.wait`."""
        self.wait((descriptor,), select.POLLIN, LOOK)
        return True

    def answer(self, number: int) -> Answer:
        """Wait for the answer to a request."""
        while (found := self.broker.take(number)) is None:
            self.wait_for_broker(self.broker.fileno())
        return found


def checked(answer: Answer) -> Answer:
    """The answer, if it is no error.

    Raises:
        OSError: it is one.
    """
    if answer.error:
        raise OSError(answer.error, answer.why)
    return answer
