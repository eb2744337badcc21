"""Connecting to the first of several addresses that answers, without waiting for one that does not (RFC 8305)."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import deque
from collections.abc import Callable, Iterable

from ..loop import WRITE, Loop, Timer

SECONDS = 30.0
"""How long the whole attempt may take."""
NEXT_SECONDS = 0.25
"""After how long without an answer the next address is tried, too."""
MAX_ADDRESSES = 8
_AT_ONCE = 3

Done = Callable[["socket.socket | None", int], None]
"""Called once, with the connected socket, or with None and an errno."""


class Dial:
    """One attempt to connect to a host with one or more addresses. Begin it with `start`.

    Args:
        make: makes a socket to be connected to an address; may raise `OSError`.
        addresses: the best first; the first `MAX_ADDRESSES` of them are tried.
        done: see `Done`.
    """

    def __init__(
        self, loop: Loop, make: Callable[[str], socket.socket], addresses: Iterable[str], port: int, done: Done
    ) -> None:
        self._loop = loop
        self._make = make
        self._left = deque(list(addresses)[:MAX_ADDRESSES])
        self._port = port
        self._done: Done | None = done
        self._trying: set[socket.socket] = set()
        self._error = errno.EHOSTUNREACH
        self._next: Timer | None = None
        self._deadline: Timer | None = None

    def start(self) -> None:
        self._deadline = self._loop.later(SECONDS, lambda: self._finish(None, errno.ETIMEDOUT))
        self._try_next()

    def cancel(self) -> None:
        """Stop, and close all sockets; `done` is not called any more."""
        self._done = None
        for timer in (self._next, self._deadline):
            if timer is not None:
                timer.cancel()
        for sock in self._trying:
            self._loop.remove(sock)
            sock.close()
        self._trying.clear()

    def _try_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        while self._left and self._done is not None and len(self._trying) < _AT_ONCE:
            if self._begin(self._left.popleft()):
                break
        if self._done is None:
            return
        if self._left:
            self._next = self._loop.later(NEXT_SECONDS, self._try_next)
        elif not self._trying:
            self._finish(None, self._error)

    def _begin(self, address: str) -> bool:
        """Begin to connect to an address; returns False if that failed at once."""
        try:
            sock = self._make(address)
        except OSError as error:
            self._error = error.errno or errno.EIO
            return False
        number = sock.connect_ex((address, self._port))
        if number == 0:
            self._finish(sock, 0)
        elif number == errno.EINPROGRESS:
            self._trying.add(sock)
            self._loop.add(sock, WRITE, lambda _: self._ready(sock))
        else:
            self._error = number
            sock.close()
            return False
        return True

    def _ready(self, sock: socket.socket) -> None:
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._loop.remove(sock)
        self._trying.discard(sock)
        if number == 0:
            self._finish(sock, 0)
            return
        self._error = number
        sock.close()
        self._try_next()

    def _finish(self, sock: socket.socket | None, number: int) -> None:
        done = self._done
        self.cancel()
        if done is not None:
            done(sock, number)
        elif sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
