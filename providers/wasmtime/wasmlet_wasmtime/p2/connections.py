"""A client's connection to a component that serves: HTTP/1.1 on a non-blocking socket.

One thread at a time uses a connection (see `front`). Each request on it, with its answer, is an exchange (`exchanges`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import time
from typing import NamedTuple

from . import answers
from .requests import Head, Reader

READ = 64 * 1024


class Limits(NamedTuple):
    """What a client may have.

    Attributes:
        head: bytes of a request's head.
        body: bytes of its body.
        head_seconds: from the first byte of a head, or the begin of a connection, to the end of the head.
        idle_seconds: between two requests.
        write_seconds: until the client takes some of what is written.
    """

    head: int = 64 * 1024
    body: int = 1024**3
    head_seconds: float = 15.0
    idle_seconds: float = 75.0
    write_seconds: float = 30.0


class Gone(Exception):
    """The client is no longer there."""


class Connection:
    """One client. Takes over the socket.

    Args:
        peer: the client that its requests count for when clients take turns (`turns.client_of`).

    Attributes:
        reader: what has come.
        out: what waits to be written.
        until: when it is closed if nothing happens, by the monotonic clock in seconds.
        idle: it waits for the first byte of a request that is not the first one.
        serving: a guest is at work for it.
        ending: it is closed once everything that waits is written.
        heard: bytes have come over it.
        moved: number of bytes that have come, and of those that were given to the kernel to be sent.
        sent: number of bytes that were given to the kernel to be sent.
        carried_before: what it had carried (`carried`) when its present request began.
        last: the present request is the last one on this connection.
        closing: nothing more is answered; it is only read until the client closes it.
    """

    def __init__(self, sock: socket.socket, limits: Limits, peer: str = "") -> None:
        self._socket, self.peer = sock, peer
        self.descriptor = sock.fileno()
        self.limits = limits
        self.reader = Reader(limits.head)
        self.out = bytearray()
        self.until = time.monotonic() + limits.head_seconds
        self.idle = False
        self.moved = self.sent = self.carried_before = 0
        self.heard = self.serving = self.last = self.ending = self.closing = False

    def fill(self) -> bool:
        """Read what has come; False where that is nothing.

        Raises:
            Gone: the connection is broken.
        """
        try:
            data = os.read(self.descriptor, READ)
        except BlockingIOError:
            return False
        except OSError:
            raise Gone from None
        if self.closing:
            if not data:
                raise Gone
            return True
        self.heard = True
        self.moved += len(data)
        if self.idle and data:
            self.idle = False
            self.until = time.monotonic() + self.limits.head_seconds
        self.reader.feed(data)
        return True

    def write(self) -> None:
        """Write what waits to be written, as far as it goes.

        Raises:
            Gone: the connection is broken.
        """
        try:
            while self.out:
                written = os.write(self.descriptor, self.out)
                self.moved += written
                self.sent += written
                del self.out[:written]
                self.until = time.monotonic() + self.limits.write_seconds
        except BlockingIOError:
            pass
        except OSError:
            raise Gone from None

    def carried(self) -> int:
        """Number of bytes that have come, and of those that the client's kernel has confirmed.

        Bytes that this machine's kernel still keeps for the client do not count.
        """
        return self.moved - self._asked_of_the_system(termios.TIOCOUTQ)

    def unread(self) -> int:
        """Number of bytes that have come and were not read."""
        return self._asked_of_the_system(termios.FIONREAD)

    def _asked_of_the_system(self, what: int) -> int:
        try:
            return int(struct.unpack("i", fcntl.ioctl(self.descriptor, what, bytes(4)))[0])
        except OSError:
            return 0

    def request(self) -> Head | None:
        """The next request, when all of its head is there.

        Raises:
            Refused: it is not taken.
            Gone: the client has closed the connection.
        """
        while True:
            event = self.reader.next()
            if isinstance(event, Head):
                return event
            if event is not None or self.reader.closed:  # an event of a request before would be a fault of ours
                raise Gone
            if not self.fill():
                return None

    @property
    def still_since(self) -> float:
        """Since when nothing has happened on it, by the monotonic clock in seconds; never for one that is in use."""
        if self.serving or self.closing:
            return float("inf")
        limits = self.limits
        return self.until - (
            limits.idle_seconds if self.idle else limits.write_seconds if self.out else limits.head_seconds
        )

    def is_quiet(self) -> bool:
        """Whether it waits for a request, and no byte of that has come."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return (self.idle or not self.heard) and not self.serving and not poll.poll(0)

    def next_cycle(self) -> None:
        """Get ready for the next request."""
        self.idle = self.reader.is_empty
        # Who asks again after an answer has it. Who has asked before may still lack much of it.
        self.carried_before = self.moved if self.idle else self.carried()
        self.until = time.monotonic() + (self.limits.idle_seconds if self.idle else self.limits.head_seconds)

    def answer(self, status: int, text: str, *, bodiless: bool = False) -> None:
        """Answer with a short text. No part of an answer may have been sent."""
        self.out += answers.text(status, text, bodiless=bodiless)

    def cut(self, *, answered: bool) -> None:
        """Shut the connection, so that a guest that waits for this client goes on. It serves no further request.

        Args:
            answered: whether part of the answer was sent. If not, only reading is shut, and an error can still be sent.
        """
        self.last = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR if answered else socket.SHUT_RD)

    def shut(self) -> None:
        """Tell the client that nothing more will be written. For two seconds, what it still sends is dropped.

        Raises:
            Gone: the connection is broken.
        """
        self.closing = True
        self.until = time.monotonic() + 2.0
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            raise Gone from None

    def close(self) -> None:
        """Close the socket."""
        self.reader.close()
        self._socket.close()
